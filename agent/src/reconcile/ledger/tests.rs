use super::*;

fn allocation(number: u32) -> Allocation {
    Allocation {
        space: Space::Class,
        digest: Digest(u128::from(number) << 64),
        number,
    }
}

fn allocations(dir: &Path) -> Vec<Allocation> {
    Ledger::in_dir(dir).load().unwrap().allocations
}

#[test]
fn appended_and_rewritten_allocations_are_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::in_dir(dir.path());
    assert_eq!(ledger.load().unwrap(), Recorded::default());
    ledger.append(&[allocation(1), allocation(2)]).unwrap();
    ledger.append(&[allocation(3)]).unwrap();
    let all = [allocation(1), allocation(2), allocation(3)];
    assert_eq!(allocations(dir.path()), all);
    ledger.rewrite(&[allocation(2)], 7).unwrap();
    ledger.append(&[allocation(9)]).unwrap();
    let recorded = Recorded {
        allocations: vec![allocation(2), allocation(9)],
        tables_below: Some(7),
    };
    assert_eq!(ledger.load().unwrap(), recorded);
}

#[test]
fn the_highest_mark_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::in_dir(dir.path());
    for below in [1024, 3072, 2048] {
        ledger.mark_tables(below).unwrap();
    }
    let recorded = Ledger::in_dir(dir.path()).load().unwrap();
    assert_eq!(recorded.tables_below, Some(3072));
}

/// A number that lost its last digits would be another number.
#[test]
fn a_line_torn_anywhere_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbers");
    let whole = render(&allocation(1)) + &render(&allocation(123_456)) + &render_mark(65_536);
    let second = render(&allocation(1)).len()..;
    for end in second.start..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let recorded = Ledger::in_dir(dir.path()).load().unwrap();
        let kept = recorded.allocations.len();
        assert!(recorded.allocations == [allocation(1), allocation(123_456)][..kept]);
        // Without its line break a line is whole.
        let marked = recorded.tables_below;
        let complete = end + 1 == whole.len();
        assert_eq!(marked, complete.then_some(65_536), "torn at {end}");
    }
}

#[test]
fn a_changed_digit_is_noticed() {
    let line = render(&allocation(123));
    assert_eq!(parse(line.trim_end()), Some(Line::Number(allocation(123))));
    for (at, byte) in line.trim_end().bytes().enumerate() {
        let mut changed = line.trim_end().as_bytes().to_vec();
        changed[at] = if byte == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(parse(&changed), None, "{changed}");
    }
}

#[test]
fn a_torn_line_does_not_spoil_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let torn = format!("{}class 00ff", render(&allocation(1)));
    fs::write(dir.path().join("numbers"), torn).unwrap();
    assert_eq!(allocations(dir.path()), [allocation(1)]);
    let mut ledger = Ledger::in_dir(dir.path());
    ledger.append(&[allocation(2)]).unwrap();
    assert_eq!(allocations(dir.path()), [allocation(1), allocation(2)]);
}

#[test]
fn bytes_that_are_no_text_cost_only_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = render(&allocation(1)).into_bytes();
    bytes.extend(b"class \xff\xfe\n");
    bytes.extend(render(&allocation(2)).into_bytes());
    fs::write(dir.path().join("numbers"), bytes).unwrap();
    assert_eq!(allocations(dir.path()), [allocation(1), allocation(2)]);
}

#[test]
fn a_ledger_of_mostly_old_lines_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::in_dir(dir.path());
    let many: Vec<_> = (0..2000).map(allocation).collect();
    ledger.append(&many).unwrap();
    assert!(!ledger.is_mostly_old(2000) && ledger.is_mostly_old(10));
    let mut reopened = Ledger::in_dir(dir.path());
    reopened.load().unwrap();
    assert!(reopened.is_mostly_old(10));
    reopened.rewrite(&many[..10], 1).unwrap();
    assert!(!reopened.is_mostly_old(10));
}

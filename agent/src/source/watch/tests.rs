//! Every way in which files can change is reported; irrelevant changes are not.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const SOON: Duration = Duration::from_secs(5);

async fn expect_change(watcher: &mut Watcher) {
    tokio::time::timeout(SOON, watcher.changed())
        .await
        .expect("a reported change")
        .unwrap();
}

/// Checks that no change is reported within 50 ms.
async fn expect_no_change(watcher: &mut Watcher) {
    let outcome = tokio::time::timeout(Duration::from_millis(50), watcher.changed()).await;
    assert!(outcome.is_err(), "a change was reported");
}

#[tokio::test]
async fn changes_in_a_directory_are_reported() {
    let directory = TempDir::new().unwrap();
    let mut watcher = Watcher::new(vec![directory.path().to_owned()]).unwrap();
    expect_no_change(&mut watcher).await;
    let file = directory.path().join("a.toml");
    fs::write(&file, "x").unwrap();
    expect_change(&mut watcher).await;
    expect_no_change(&mut watcher).await;
    fs::write(&file, "y").unwrap();
    expect_change(&mut watcher).await;
    fs::rename(&file, directory.path().join("b.toml")).unwrap();
    expect_change(&mut watcher).await;
    fs::remove_file(directory.path().join("b.toml")).unwrap();
    expect_change(&mut watcher).await;
    expect_no_change(&mut watcher).await;
}

#[tokio::test]
async fn a_watched_file_is_reported_and_its_neighbours_are_not() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.toml");
    let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
    fs::write(directory.path().join("other"), "x").unwrap();
    expect_no_change(&mut watcher).await;
    fs::rename(directory.path().join("other"), &file).unwrap();
    expect_change(&mut watcher).await;
}

#[tokio::test]
async fn a_config_map_swap_is_reported() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..1")).unwrap();
    fs::write(at("..1/a.toml"), "x").unwrap();
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.toml", at("a.toml")).unwrap();
    for root in [directory.path().to_owned(), at("a.toml")] {
        let mut watcher = Watcher::new(vec![root]).unwrap();
        fs::create_dir_all(at("..2")).unwrap();
        fs::write(at("..2/a.toml"), "y").unwrap();
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        expect_change(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_directory_that_changed_before_it_was_watched_is_reported() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for version in ["..1", "..2"] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.toml"), version).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.toml", at("a.toml")).unwrap();
    let mut watcher = Watcher::new(vec![at("a.toml")]).unwrap();
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    expect_change(&mut watcher).await;
    // The file is read after the first report and changes again.
    fs::write(at("..2/a.toml"), "3").unwrap();
    expect_change(&mut watcher).await;
    expect_no_change(&mut watcher).await;
    fs::write(at("..2/a.toml"), "4").unwrap();
    expect_change(&mut watcher).await;
}

#[tokio::test]
async fn the_target_of_a_symbolic_link_is_watched() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = there.path().join("real.toml");
    fs::write(&target, "x").unwrap();
    symlink(&target, here.path().join("a.toml")).unwrap();
    let mut watcher = Watcher::new(vec![here.path().to_owned()]).unwrap();
    fs::write(there.path().join("unrelated"), "x").unwrap();
    expect_no_change(&mut watcher).await;
    fs::write(&target, "y").unwrap();
    expect_change(&mut watcher).await;
}

#[tokio::test]
async fn a_directory_that_is_created_later_is_watched() {
    let directory = TempDir::new().unwrap();
    let policies = directory.path().join("etc/policies");
    let mut watcher = Watcher::new(vec![policies.clone()]).unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    expect_change(&mut watcher).await;
    fs::create_dir(&policies).unwrap();
    expect_change(&mut watcher).await;
    fs::write(policies.join("a.toml"), "x").unwrap();
    expect_change(&mut watcher).await;
    fs::rename(&policies, directory.path().join("etc/old")).unwrap();
    expect_change(&mut watcher).await;
    fs::create_dir(&policies).unwrap();
    expect_change(&mut watcher).await;
    fs::write(policies.join("b.toml"), "x").unwrap();
    expect_change(&mut watcher).await;
}

#[tokio::test]
async fn the_files_that_are_being_written_are_known() {
    use std::io::Write as _;

    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.toml");
    fs::write(&file, "before").unwrap();
    let mut watcher = Watcher::new(vec![directory.path().to_owned()]).unwrap();
    let id = |path: &Path| FileId::of(&fs::metadata(path).unwrap());
    assert!(watcher.being_written().unwrap().is_empty());
    // Emptied in place: no change yet, but what is read is not whole.
    let mut open = fs::File::create(&file).unwrap();
    expect_no_change(&mut watcher).await;
    assert_eq!(watcher.being_written().unwrap(), [id(&file)].into());
    open.write_all(b"part").unwrap();
    expect_no_change(&mut watcher).await;
    assert_eq!(watcher.being_written().unwrap(), [id(&file)].into());
    // What was read so far is not whole, although it is now. Asking first loses no change.
    drop(open);
    assert_eq!(watcher.being_written().unwrap(), [id(&file)].into());
    expect_change(&mut watcher).await;
    watcher.begin_reading().unwrap();
    assert!(watcher.being_written().unwrap().is_empty());
    expect_no_change(&mut watcher).await;
    // Written as a whole while the files are read, and before.
    fs::write(&file, "whole").unwrap();
    assert_eq!(watcher.being_written().unwrap(), [id(&file)].into());
    expect_change(&mut watcher).await;
    fs::write(&file, "whole again").unwrap();
    watcher.begin_reading().unwrap();
    assert!(watcher.being_written().unwrap().is_empty());
    expect_no_change(&mut watcher).await;
    // A new file.
    fs::remove_file(&file).unwrap();
    expect_change(&mut watcher).await;
    let open = fs::File::create(&file).unwrap();
    expect_change(&mut watcher).await;
    assert_eq!(watcher.being_written().unwrap(), [id(&file)].into());
    drop(open);
    expect_change(&mut watcher).await;
    watcher.begin_reading().unwrap();
    assert!(watcher.being_written().unwrap().is_empty());
    // A link is never written, and a file that is moved into place is whole.
    symlink(&file, directory.path().join("b.toml")).unwrap();
    expect_change(&mut watcher).await;
    let staged = directory.path().join("staged");
    let mut open = fs::File::create(&staged).unwrap();
    open.write_all(b"whole").unwrap();
    fs::rename(&staged, &file).unwrap();
    expect_change(&mut watcher).await;
    watcher.begin_reading().unwrap();
    assert!(watcher.being_written().unwrap().is_empty());
}

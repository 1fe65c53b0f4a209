//! What a verifier objected to, out of the text of a failed load.
//!
//! The text is the debug form of the agent's error: the program, the kernel's error, and the verifier's
//! log with `\n` for line ends. The objection is the last line of the log that is neither an instruction,
//! source text, nor one of the figures that follow. Addresses and counts are not part of it, so that
//! tests that failed by the same refusal have the same text.

/// What the log is preceded by.
const LOG: &str = "Verifier output: ";
const PROGRAM: &str = "program: \"";
/// Beginnings of lines with figures.
const FIGURES: [&str; 4] = [
    "processed ",
    "verification time",
    "stack depth",
    "mark_read",
];

/// `from_workload refused by the verifier: …`, or `None` if this is no refusal.
pub(super) fn in_text(text: &str) -> Option<String> {
    let (before, log) = text.split_once(LOG)?;
    let program = before.split(PROGRAM).nth(1)?.split('"').next()?;
    // The log ends with the string that has it.
    let log = log.split("\\n\"").next().unwrap_or(log);
    let mut lines = log.rsplit("\\n").map(str::trim);
    let objection = lines.find(|line| is_objection(line))?;
    Some(format!("{program} refused by the verifier: {objection}"))
}

fn is_objection(line: &str) -> bool {
    let is_code = line.starts_with(|first: char| first.is_ascii_digit() || first == ';');
    let is_figure = FIGURES.iter().any(|figure| line.starts_with(figure));
    !line.is_empty() && !is_code && !is_figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objection_is_what_precedes_the_figures() {
        // As a kernel of 6.1 refused it.
        let text = r#"called `Result::unwrap()` on an `Err` value: Program { program: "from_workload", reason: "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: Func#30 is safe for any args that match its prototype\n; if !ptr.is_null() {\n9405: (07) r1 += 88\nR1 pointer arithmetic on map_value_or_null prohibited, null-check it first\nverification time 2320180 usec\nstack depth 0+0+8\nprocessed 11380 insns (limit 1000000) max_states_per_insn 7\n" }"#;
        assert_eq!(
            in_text(text).unwrap(),
            "from_workload refused by the verifier: R1 pointer arithmetic on map_value_or_null prohibited, null-check it first"
        );
        assert_eq!(in_text("assertion failed"), None);
        assert_eq!(in_text("Verifier output: nothing"), None);
    }
}

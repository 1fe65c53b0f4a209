//! Reads a TOML text's policies: their names, and the text with the policies in reverse order.

use toml::{Table, Value};

/// The text with its `[[policy]]` blocks in reverse order; unchanged if the blocks cannot be
/// separated.
///
/// Order matters among the rules of a policy, but not among policies.
pub(super) fn reversed(text: &str) -> String {
    let mut blocks: Vec<String> = vec![String::new()];
    for line in text.lines() {
        let header = line.trim().strip_prefix("[[policy]]");
        if header.is_some_and(|rest| rest.trim_start().is_empty() || rest.contains('#')) {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    let preamble = blocks.remove(0);
    let turned: String = std::iter::once(&preamble)
        .chain(blocks.iter().rev())
        .map(String::as_str)
        .collect();
    // Lines inside a multi-line string may look like headers: compare the parsed policies.
    let mut expected = policies(text);
    if let Some(expected) = &mut expected {
        expected.reverse();
    }
    if expected.is_some() && policies(&turned) == expected {
        turned
    } else {
        text.to_owned()
    }
}

/// The names of the policies; empty if the text is not TOML.
pub(super) fn names(text: &str) -> Vec<String> {
    let policies = policies(text).unwrap_or_default();
    let name = |policy: &Value| Some(policy.get("name")?.as_str()?.to_owned());
    policies.iter().filter_map(name).collect()
}

fn policies(text: &str) -> Option<Vec<Value>> {
    let table: Table = text.parse().ok()?;
    table.get("policy")?.as_array().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# preamble\n[[policy]]\nname = \"a\"\n[[policy.ingress]]\nx = 1\n\
                       [[policy.ingress]]\nx = 2\n\n[[policy]] # second\nname = \"b\"\n";

    #[test]
    fn policies_are_reversed_and_rules_are_not() {
        let turned = reversed(TWO);
        assert_eq!(names(&turned), ["b", "a"]);
        assert!(turned.starts_with("# preamble\n"), "{turned}");
        let [_, a] = policies(&turned).unwrap().try_into().unwrap();
        assert_eq!(a["ingress"][0]["x"].as_integer(), Some(1));
        assert_eq!(reversed(&turned).trim(), TWO.trim());
    }

    #[test]
    fn unparseable_text_is_unchanged() {
        for text in [
            "",
            "not toml",
            "[[policy]]\nname = '''\n[[policy]]\n'''\n[[policy]]\nname = \"b\"\n",
        ] {
            assert_eq!(reversed(text), text);
        }
        assert_eq!(names("not toml"), Vec::<String>::new());
    }
}

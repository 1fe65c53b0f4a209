//! Tests of the copy, on a small tree of their own.

use std::env;
use std::process;

use super::*;

/// A directory that goes away with its value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ringfence-xtask-{}-{name}", process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, content: &str) {
        write_if_changed(&self.0.join(file), content.as_bytes()).unwrap();
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.0.join(file)).ok()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn refreshed(root: &Directory, copy: &Directory) -> usize {
    refresh(&root.0, &copy.0, &Sources::new(), &Places::new()).unwrap()
}

#[test]
fn only_what_differs_is_written() {
    let (root, copy) = (Directory::new("root"), Directory::new("copy"));
    root.write(SHARED_ROOT, "//! Shared.\n");
    root.write("agent/src/x.rs", "fn f() {}");
    root.write(".git/HEAD", "x");
    root.write("tests/fuzz/target/x", "x");
    root.write("built/CACHEDIR.TAG", "x");
    assert_eq!(refreshed(&root, &copy), 3);
    assert_eq!(refreshed(&root, &copy), 0);
    let shared = copy.read(SHARED_ROOT).unwrap();
    assert_eq!(
        shared.strip_prefix(FEATURES),
        Some("//! Shared.\n\npub mod mutant;\n")
    );
    assert!(copy.read(SWITCH).unwrap().contains("macro_rules! mutant"));
    assert_eq!(copy.read(".git/HEAD"), None);
    assert_eq!(copy.read("tests/fuzz/target/x"), None);
    assert_eq!(copy.read("built/CACHEDIR.TAG"), None);

    root.write("agent/src/x.rs", "fn g() {}");
    assert_eq!(refreshed(&root, &copy), 1);
    assert_eq!(copy.read("agent/src/x.rs").unwrap(), "fn g() {}");
    fs::remove_file(root.0.join("agent/src/x.rs")).unwrap();
    assert_eq!(refreshed(&root, &copy), 1);
    assert_eq!(copy.read("agent/src/x.rs"), None);
}

#[test]
fn a_tree_that_has_a_switch_of_its_own_is_refused() {
    let (root, copy) = (Directory::new("own-root"), Directory::new("own-copy"));
    root.write(SHARED_ROOT, "");
    root.write(SWITCH, "");
    let error = refresh(&root.0, &copy.0, &Sources::new(), &Places::new()).unwrap_err();
    assert!(error.to_string().contains("rename the module"), "{error}");
}

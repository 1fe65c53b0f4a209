//! The container images of a cluster, as docker archives that are made here.
//!
//! A pod needs the *pause* image for its sandbox; *agnhost* is upstream's program for network
//! tests (`netexec`, `connect`, `pause`, …). Nothing is pulled from an image registry.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The image of pods' sandboxes.
pub(crate) const PAUSE: &str = "ringfence.test/pause:1";
/// The image of upstream's test program.
pub const AGNHOST: &str = "ringfence.test/agnhost:1";

/// The source of the sandbox's only process.
pub(crate) const PAUSE_SOURCE: &str = include_str!("../pause/pause.c");

/// Makes both images in `folder`; `kubernetes` has the programs.
pub(crate) fn make(folder: &Path, kubernetes: &Path) -> Result<()> {
    let pause = compile_pause(folder)?;
    archive(&folder.join("pause.tar"), PAUSE, "pause", &pause)?;
    fs::remove_file(pause)?;
    let agnhost = kubernetes.join("agnhost");
    archive(&folder.join("agnhost.tar"), AGNHOST, "agnhost", &agnhost)
}

fn compile_pause(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("pause.c"), folder.join("pause"));
    fs::write(&source, PAUSE_SOURCE)?;
    let status = Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .args([&program, &source])
        .status()
        .context("starting cc (package gcc)")?;
    ensure!(status.success(), "cc failed on the sandbox's program");
    fs::remove_file(source)?;
    Ok(program)
}

/// An image named `reference` whose entry point is the program `name`, copied from `program`. It
/// must be linked statically, as there is nothing else in the image.
fn archive(path: &Path, reference: &str, name: &str, program: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let layer = layer(name, &content)?;
    let digest = hex(&layer);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [format!("/bin/{name}")], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let config = serde_json::to_vec(&config)?;
    let (config_file, layer_file) = (format!("{}.json", hex(&config)), format!("{digest}.tar"));
    let manifest =
        json!([{"Config": config_file, "RepoTags": [reference], "Layers": [layer_file]}]);
    let mut tar = Builder::new(File::create(path)?);
    add(&mut tar, &config_file, EntryType::Regular, 0o644, &config)?;
    add(&mut tar, &layer_file, EntryType::Regular, 0o644, &layer)?;
    let manifest = serde_json::to_vec(&manifest)?;
    add(
        &mut tar,
        "manifest.json",
        EntryType::Regular,
        0o644,
        &manifest,
    )?;
    tar.into_inner()?.flush()?;
    Ok(())
}

fn layer(name: &str, program: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "var/"] {
        add(&mut tar, folder, EntryType::Directory, 0o755, &[])?;
    }
    add(&mut tar, "tmp/", EntryType::Directory, 0o1777, &[])?;
    let users = b"root:x:0:0:root:/:/bin/false\n";
    add(&mut tar, "etc/passwd", EntryType::Regular, 0o644, users)?;
    add(
        &mut tar,
        &format!("bin/{name}"),
        EntryType::Regular,
        0o755,
        program,
    )?;
    Ok(tar.into_inner()?)
}

fn add<W: std::io::Write>(
    tar: &mut Builder<W>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(u64::try_from(content.len())?);
    tar.append_data(&mut header, path, content)
        .with_context(|| format!("adding {path} to an image"))
}

fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that images use for this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::io::Read as _;

    #[test]
    fn an_archive_names_its_image_and_contains_the_program() -> Result<()> {
        let place = tempfile::tempdir()?;
        let (program, path) = (place.path().join("p"), place.path().join("image.tar"));
        fs::write(&program, b"not really a program")?;
        archive(&path, "example.test/p:1", "p", &program)?;
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(&path)?).entries()? {
            let mut entry = entry?;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(entry.path()?.display().to_string(), content);
        }
        let manifest: Value = serde_json::from_slice(files.get("manifest.json").context("none")?)?;
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str);
        assert_eq!(text("/0/RepoTags/0"), Some("example.test/p:1"));
        let layer = text("/0/Layers/0").and_then(|name| files.get(name));
        let layer = layer.context("the layer is missing")?;
        let mut names = Vec::new();
        for entry in tar::Archive::new(layer.as_slice()).entries()? {
            names.push(entry?.path()?.display().to_string());
        }
        assert!(names.contains(&"bin/p".to_owned()), "{names:?}");
        let config: Value = text("/0/Config")
            .and_then(|name| files.get(name))
            .map(|config| serde_json::from_slice(config))
            .context("the configuration is missing")??;
        let id = format!("sha256:{}", hex(layer));
        assert_eq!(config.pointer("/rootfs/diff_ids/0"), Some(&Value::from(id)));
        Ok(())
    }
}

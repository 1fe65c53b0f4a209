//! An image of one program in the OCI image layout, as one archive.
//!
//! Invariants: the bytes depend on the content alone: no times, owners or names of the machine, entries in a fixed
//! order; every digest is that of the bytes next to it. The formats are the OCI image specification 1.1: `image-layout.md`,
//! `manifest.md`, `config.md`, `annotations.md`. The layer is not compressed.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What is in an image.
pub(super) struct Image<'a> {
    /// Its name and tag.
    pub(super) reference: String,
    pub(super) version: &'a str,
    /// As Go names it.
    pub(super) architecture: &'a str,
    /// The program, which must be linked statically.
    pub(super) program: &'a [u8],
}

/// Content, and how it is referred to.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let digest = Sha256::digest(&content);
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            media_type,
            digest,
            content,
        }
    }

    fn json(media_type: &'static str, content: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(content)?))
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.content.len(),
        })
    }
}

impl Image<'_> {
    /// The archive.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let layer = Blob::new(LAYER, self.layer()?);
        let config = Blob::json(CONFIG, &self.config(&layer))?;
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": self.labels(),
            }),
        )?;
        let mut descriptor = manifest.descriptor();
        let tag = self.reference.rsplit_once(':').map(|(_, tag)| tag);
        let about = json!({
            "org.opencontainers.image.ref.name": tag.unwrap_or_default(),
            // By which containerd names what it imports.
            "io.containerd.image.name": self.reference,
        });
        if let Some(descriptor) = descriptor.as_object_mut() {
            descriptor.insert("annotations".to_owned(), about);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
        let layout = json!({"imageLayoutVersion": "1.0.0"});

        let mut tar = Builder::new(Vec::new());
        directory(&mut tar, "blobs/")?;
        directory(&mut tar, "blobs/sha256/")?;
        let mut blobs = [layer, config, manifest];
        blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
        for blob in &blobs {
            let path = format!("blobs/sha256/{}", blob.digest);
            file(&mut tar, &path, 0o644, &blob.content)?;
        }
        file(&mut tar, "index.json", 0o644, &serde_json::to_vec(&index)?)?;
        file(&mut tar, "oci-layout", 0o644, &serde_json::to_vec(&layout)?)?;
        Ok(tar.into_inner()?)
    }

    /// The file system: the program, and the places that runtimes and the agent mount something on.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for path in ["bin/", "dev/", "etc/", "etc/ringfence/", "proc/", "run/"] {
            directory(&mut tar, path)?;
        }
        for path in [
            "run/ringfence/",
            "sys/",
            "var/",
            "var/lib/",
            "var/lib/ringfence/",
        ] {
            directory(&mut tar, path)?;
        }
        file(&mut tar, "bin/ringfence", 0o755, self.program)?;
        Ok(tar.into_inner()?)
    }

    fn config(&self, layer: &Blob) -> Value {
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": ["/bin/ringfence"],
                "Env": ["PATH=/bin"],
                "Labels": self.labels(),
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        })
    }

    fn labels(&self) -> Value {
        json!({
            "org.opencontainers.image.title": "ringfence",
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
        })
    }
}

fn directory(tar: &mut Builder<Vec<u8>>, path: &str) -> Result<()> {
    add(tar, path, EntryType::Directory, 0o755, &[])
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    add(tar, path, EntryType::Regular, mode, content)
}

/// Owned by root, at the beginning of time.
fn add(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_size(u64::try_from(content.len())?);
    tar.append_data(&mut header, path, content)
        .with_context(|| format!("cannot add {path} to the image"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image(program: &[u8]) -> Image<'_> {
        Image {
            reference: "example.test/a:2".to_owned(),
            version: "2",
            architecture: "amd64",
            program,
        }
    }

    fn entries(archive: &[u8]) -> Result<BTreeMap<String, (u64, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let time = entry.header().mtime()?;
            files.insert(entry.path()?.display().to_string(), (time, content));
        }
        Ok(files)
    }

    #[test]
    fn every_digest_leads_to_its_content() -> Result<()> {
        let archive = image(b"not really a program").archive()?;
        let files = entries(&archive)?;
        let read = |path: &str| -> Result<Value> {
            let (_, content) = files.get(path).with_context(|| format!("no {path}"))?;
            Ok(serde_json::from_slice(content)?)
        };
        let blob = |descriptor: Option<&Value>| -> Result<String> {
            let digest = descriptor.and_then(|it| it.get("digest")?.as_str());
            let digest = digest.context("no digest")?.replace(':', "/");
            let path = format!("blobs/{digest}");
            let (_, content) = files.get(&path).with_context(|| format!("no {path}"))?;
            let found = Sha256::digest(content);
            let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(path.ends_with(&found), "{path}: {found}");
            Ok(path)
        };
        let index = read("index.json")?;
        let name = index.pointer("/manifests/0/annotations/io.containerd.image.name");
        assert_eq!(name, Some(&json!("example.test/a:2")));
        let manifest = read(&blob(index.pointer("/manifests/0"))?)?;
        let config = read(&blob(manifest.get("config"))?)?;
        let version = config.pointer("/config/Labels/org.opencontainers.image.version");
        assert_eq!(version, Some(&json!("2")));
        let layer = manifest.pointer("/layers/0");
        let id = config.pointer("/rootfs/diff_ids/0");
        assert_eq!(id, layer.and_then(|it| it.get("digest")));
        let (_, layer) = files.get(&blob(layer)?).context("no layer")?;
        let (_, program) = entries(layer)?
            .remove("bin/ringfence")
            .context("no program")?;
        assert_eq!(program, b"not really a program");
        Ok(())
    }

    #[test]
    fn the_bytes_depend_on_nothing_but_the_content() -> Result<()> {
        let archive = image(b"a").archive()?;
        assert_eq!(archive, image(b"a").archive()?);
        assert_ne!(archive, image(b"b").archive()?);
        let times: Vec<u64> = entries(&archive)?.values().map(|(time, _)| *time).collect();
        assert!(times.iter().all(|time| *time == 0), "{times:?}");
        Ok(())
    }
}

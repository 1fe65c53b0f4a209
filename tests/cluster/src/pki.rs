//! A certificate authority, certificates and kubeconfigs for one cluster.
//!
//! They are worthless outside of it: the keys never leave the cluster's folder, which only its
//! user can read.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::home::Description;
use crate::spec::node_name;

/// The folder with all of them.
pub(crate) struct Pki {
    folder: PathBuf,
    server: String,
}

impl Pki {
    /// A folder that [`Pki::create`] has filled.
    pub(crate) fn at(folder: PathBuf, description: &Description) -> Self {
        let server = format!("https://{}:6443", description.ranges().control_plane4());
        Self { folder, server }
    }

    /// The certificate of `name`.
    pub(crate) fn certificate(&self, name: &str) -> String {
        self.path(&format!("{name}.crt"))
    }

    /// The private key of `name`.
    pub(crate) fn key(&self, name: &str) -> String {
        self.path(&format!("{name}.key"))
    }

    /// The kubeconfig of `name`.
    pub(crate) fn kubeconfig(&self, name: &str) -> String {
        self.path(&format!("{name}.kubeconfig"))
    }

    /// One half of the key that signs tokens of service accounts: `key` or `pub`.
    pub(crate) fn path_of_token_key(&self, half: &str) -> String {
        self.path(&format!("service-accounts.{half}"))
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// Creates everything.
    pub(crate) fn create(&self, description: &Description) -> Result<()> {
        fs::create_dir(&self.folder).context("creating the folder of certificates")?;
        let authority = self.authority()?;
        let ranges = description.ranges();
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut server = names_of(&names)?;
        server.push(SanType::IpAddress(ranges.control_plane4().into()));
        server.push(SanType::IpAddress(ranges.kubernetes_service().into()));
        server.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
        let leaf = |name: &str, user: &str, group: &str, alternatives| {
            self.leaf(&authority, name, user, group, alternatives)
        };
        leaf("apiserver", "kube-apiserver", "", server)?;
        let client = "kube-apiserver-kubelet-client";
        leaf("apiserver-kubelet", client, "", Vec::new())?;
        for (name, user, group) in [
            ("admin", "admin", "system:masters"),
            (
                "kube-controller-manager",
                "system:kube-controller-manager",
                "",
            ),
            ("kube-scheduler", "system:kube-scheduler", ""),
            ("kube-proxy", "system:kube-proxy", ""),
        ] {
            leaf(name, user, group, Vec::new())?;
            self.write_kubeconfig(name)?;
        }
        for number in description.spec.node_numbers() {
            let node = node_name(number);
            let mut alternatives = names_of(&[&node])?;
            alternatives.push(SanType::IpAddress(ranges.node4(number).into()));
            if description.spec.is_dual() {
                alternatives.push(SanType::IpAddress(ranges.node6(number).into()));
            }
            leaf(
                &node,
                &format!("system:node:{node}"),
                "system:nodes",
                alternatives,
            )?;
            self.write_kubeconfig(&node)?;
        }
        self.service_account_key()
    }

    fn authority(&self) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "cluster-ca");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = authority.self_signed(&key)?;
        self.write("ca.crt", &certificate.pem())?;
        self.write("ca.key", &key.serialize_pem())?;
        Ok(Issuer::new(authority, key))
    }

    fn leaf(
        &self,
        authority: &Issuer<'_, KeyPair>,
        name: &str,
        user: &str,
        group: &str,
        alternatives: Vec<SanType>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            leaf.distinguished_name
                .push(DnType::OrganizationName, group);
        }
        leaf.subject_alt_names = alternatives;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = leaf.signed_by(&key, authority)?;
        self.write(&format!("{name}.crt"), &certificate.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    /// The key that signs tokens of service accounts, and its public half.
    fn service_account_key(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        self.write("service-accounts.key", &key.serialize_pem())?;
        self.write("service-accounts.pub", &key.public_key_pem())
    }

    fn write_kubeconfig(&self, name: &str) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {
                "server": self.server,
                "certificate-authority": self.certificate("ca"),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate": self.certificate(name),
                "client-key": self.key(name),
            }}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
            "current-context": "cluster",
        });
        self.write(
            &format!("{name}.kubeconfig"),
            &serde_json::to_string_pretty(&config)?,
        )
    }

    fn write(&self, file: &str, content: &str) -> Result<()> {
        let path = Path::new(&self.folder).join(file);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.as_bytes())
            .with_context(|| format!("writing {}", path.display()))
    }
}

fn names_of(names: &[&str]) -> Result<Vec<SanType>> {
    let name = |name: &&str| Ok(SanType::DnsName((*name).try_into()?));
    names.iter().map(name).collect()
}

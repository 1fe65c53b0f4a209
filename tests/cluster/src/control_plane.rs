//! etcd, API server, controller manager and scheduler, in a network namespace of their own.
//!
//! The controller manager is started after the API server is ready: earlier it waits for seconds.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::component::{CONTROL_PLANE, Site};
use crate::pki::Pki;

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// Starts etcd and the API server in the namespaces of the calling thread.
pub(crate) fn start_api(site: &Site<'_>, pki: &Pki) -> Result<()> {
    let data = site.folder.path().join("etcd");
    let data = data.display();
    let etcd = vec![
        format!("--data-dir={data}"),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=default={ETCD_PEERS}"),
        // A cluster does not outlive the machine anyway.
        "--unsafe-no-fsync".to_owned(),
    ];
    let programs = &site.programs().kubernetes;
    site.start("etcd", CONTROL_PLANE, &programs.join("etcd"), etcd)?;
    let server = api_server_arguments(site, pki);
    let program = programs.join("kube-apiserver");
    site.start("kube-apiserver", CONTROL_PLANE, &program, server)?;
    Ok(())
}

fn api_server_arguments(site: &Site<'_>, pki: &Pki) -> Vec<String> {
    let (spec, ranges) = (&site.description.spec, site.description.ranges());
    vec![
        format!("--etcd-servers={ETCD}"),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={}", ranges.control_plane4()),
        "--secure-port=6443".to_owned(),
        format!(
            "--cert-dir={}",
            site.folder.path().join("kube-apiserver").display()
        ),
        format!("--tls-cert-file={}", pki.certificate("apiserver")),
        format!("--tls-private-key-file={}", pki.key("apiserver")),
        format!("--client-ca-file={}", pki.certificate("ca")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            pki.path_of_token_key("pub")
        ),
        format!(
            "--service-account-signing-key-file={}",
            pki.path_of_token_key("key")
        ),
        format!(
            "--service-cluster-ip-range={}",
            ranges.services(spec.is_dual())
        ),
        "--authorization-mode=Node,RBAC".to_owned(),
        // Installers set it, the program does not.
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged".to_owned(),
        format!(
            "--kubelet-client-certificate={}",
            pki.certificate("apiserver-kubelet")
        ),
        format!("--kubelet-client-key={}", pki.key("apiserver-kubelet")),
        format!("--kubelet-certificate-authority={}", pki.certificate("ca")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // There is no kube-proxy here: webhooks are reached at the addresses of their pods.
        "--enable-aggregator-routing=true".to_owned(),
    ]
}

/// Starts controller manager and scheduler in the namespaces of the calling thread.
pub(crate) fn start_controllers(site: &Site<'_>, pki: &Pki) -> Result<()> {
    let (spec, ranges) = (&site.description.spec, site.description.ranges());
    let programs = &site.programs().kubernetes;
    let certificates =
        |name: &str| format!("--cert-dir={}", site.folder.path().join(name).display());
    let name = "kube-controller-manager";
    let kubeconfig = pki.kubeconfig(name);
    let manager = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!(
            "--service-account-private-key-file={}",
            pki.path_of_token_key("key")
        ),
        format!("--root-ca-file={}", pki.certificate("ca")),
        format!("--cluster-signing-cert-file={}", pki.certificate("ca")),
        format!("--cluster-signing-key-file={}", pki.key("ca")),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        "--allocate-node-cidrs=false".to_owned(),
        format!("--cluster-cidr={}", ranges.all_pods(spec.is_dual())),
        certificates(name),
    ];
    site.start(name, CONTROL_PLANE, &programs.join(name), manager)?;
    let name = "kube-scheduler";
    let kubeconfig = pki.kubeconfig(name);
    let scheduler = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        certificates(name),
    ];
    site.start(name, CONTROL_PLANE, &programs.join(name), scheduler)?;
    Ok(())
}

/// Whether the API server accepts connections, from the calling thread's network namespace.
pub(crate) fn listens(site: &Site<'_>) -> bool {
    let address = SocketAddr::from((site.description.ranges().control_plane4(), 6443));
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

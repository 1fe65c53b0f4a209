//! containerd of one node, and the images in it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cni;
use crate::component::Site;
use crate::images::PAUSE;
use crate::mounts::CNI_PLUGINS;
use crate::wait::eventually;

/// Its socket, at the usual path.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
const CONFIG: &str = "/etc/containerd/config.toml";

/// Starts it in the namespaces of the calling thread and waits for its socket.
pub(crate) fn start(site: &Site<'_>, node: &str) -> Result<()> {
    fs::create_dir_all("/etc/containerd")?;
    fs::write(CONFIG, configuration()).context("writing containerd's configuration")?;
    let program = site.programs().containerd.join("containerd");
    let arguments = vec![format!("--config={CONFIG}")];
    let process = site.start("containerd", node, &program, arguments)?;
    let (deadline, pause) = (Duration::from_secs(60), Duration::from_millis(20));
    eventually(deadline, pause, "containerd's socket", || {
        ensure!(process.lives(), "containerd has ended");
        Ok(Path::new(SOCKET).exists().then_some(()))
    })
}

/// Imports a docker archive or OCI archive, in the namespaces of the calling thread.
pub(crate) fn import(ctr: &Path, image: &Path) -> Result<()> {
    let output = Command::new(ctr)
        .args([
            "--address",
            SOCKET,
            "--namespace",
            "k8s.io",
            "images",
            "import",
        ])
        .arg(image)
        .output()
        .context("starting ctr")?;
    ensure!(
        output.status.success(),
        "importing {}: {}",
        image.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn configuration() -> String {
    let no_apparmor = !Path::new("/sys/kernel/security/apparmor/profiles").exists();
    format!(
        r#"version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = {no_apparmor}
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{}"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        cni::FOLDER
    )
}

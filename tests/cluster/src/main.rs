//! `cargo xtask cluster`: the commands on test clusters.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

use ringfence_cluster::status::Status;
use ringfence_cluster::{Cluster, Home, Spec, check, teardown};

#[derive(Parser)]
#[command(
    name = "cargo xtask cluster",
    bin_name = "cargo xtask cluster",
    about = "Real Kubernetes clusters on this machine, for tests; needs root"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring a cluster up, building its programs the first time (15 minutes on two cores)
    Up(Spec),
    /// End a cluster with everything that belongs to it
    Down {
        /// Name of the cluster
        #[arg(default_value = "default")]
        name: String,
        /// End all clusters
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Say what runs; exits with 1 unless everything does and all nodes are Ready
    Status {
        /// Name of the cluster
        #[arg(default_value = "default")]
        name: String,
    },
    /// Names of the clusters
    List,
    /// Run kubectl on a cluster, as its administrator
    Kubectl {
        /// Name of the cluster; must come first
        #[arg(long, default_value = "default")]
        name: String,
        /// Passed on to kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run Helm on a cluster, as its administrator; built the first time
    Helm {
        /// Name of the cluster; must come first
        #[arg(long, default_value = "default")]
        name: String,
        /// Passed on to Helm
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a program on a node, for example `exec n1 ip address`
    Exec {
        /// Name of the cluster; must come first
        #[arg(long, default_value = "default")]
        name: String,
        /// The node, or `cp` for the control plane
        node: String,
        /// Program and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Print the log of a component, or the end of every log
    Logs {
        /// Name of the cluster
        #[arg(long, default_value = "default")]
        name: String,
        /// For example `etcd` or `kubelet-n1`
        component: Option<String>,
    },
    /// Bring clusters of several kinds up and down, with traffic, and look for what is left
    Check {
        /// Only parts whose name contains this
        #[arg(long, default_value = "")]
        filter: String,
    },
}

fn main() -> ExitCode {
    perform().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform() -> Result<ExitCode> {
    let task = Arguments::parse().task;
    let home = Home::default_place()?;
    match task {
        Task::Up(spec) => up(&home, &spec)?,
        Task::Down { all: true, .. } => {
            let mut left = false;
            for (name, outcome) in teardown::down_all(&home)? {
                match outcome {
                    Ok(()) => println!("cluster {name} has ended"),
                    Err(error) => {
                        left = true;
                        eprintln!("cluster {name}: {error:#}");
                    }
                }
            }
            ensure!(!left, "not all clusters have ended");
        }
        Task::Down { name, .. } => {
            let folder = home.folder(&name)?;
            if folder.exists() {
                teardown::down(&folder)?;
                println!("cluster {name} has ended");
            } else {
                println!("there is no cluster {name}");
            }
        }
        Task::Status { name } => {
            let status = Status::of(&Cluster::attach(home.folder(&name)?)?)?;
            print!("{status}");
            if !status.is_healthy() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::List => {
            for folder in home.folders()? {
                println!("{}", folder.name());
            }
        }
        Task::Kubectl { name, arguments } => {
            let cluster = Cluster::attach(home.folder(&name)?)?;
            cluster.join()?;
            cluster.control_plane()?.enter()?;
            let mut kubectl = cluster.kubectl_command();
            return Err(kubectl.args(arguments).exec()).context("starting kubectl");
        }
        Task::Helm { name, arguments } => {
            let cluster = Cluster::attach(home.folder(&name)?)?;
            let mut helm = cluster.helm_command()?;
            cluster.join()?;
            cluster.control_plane()?.enter()?;
            return Err(helm.args(arguments).exec()).context("starting helm");
        }
        Task::Exec {
            name,
            node,
            command,
        } => {
            let cluster = Cluster::attach(home.folder(&name)?)?;
            cluster.join()?;
            if node == "cp" {
                cluster.control_plane()?.enter()?;
            } else {
                cluster.node(&node)?.enter()?;
            }
            let (program, arguments) = command.split_first().context("no program")?;
            let error = Command::new(program).args(arguments).exec();
            return Err(error).with_context(|| format!("starting {}", program.display()));
        }
        Task::Logs { name, component } => logs(&home, &name, component.as_deref())?,
        Task::Check { filter } => return check::run(&filter),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(home: &Home, spec: &Spec) -> Result<()> {
    let begun = Instant::now();
    let cluster = Cluster::up_in(home, spec, None)?;
    let name = &spec.name;
    println!(
        "cluster {name} is up after {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    println!("  cargo xtask cluster kubectl --name {name} get nodes");
    cluster.keep();
    Ok(())
}

fn logs(home: &Home, name: &str, component: Option<&str>) -> Result<()> {
    let folder = home.folder(name)?;
    ensure!(folder.exists(), "there is no cluster {name}");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.logs()).context("reading the logs")? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        names.extend(file.strip_suffix(".log").map(str::to_owned));
    }
    names.sort();
    let path = |name: &str| folder.logs().join(format!("{name}.log"));
    let Some(component) = component else {
        for name in &names {
            println!("==> {name} <==\n{}", check::tail(&path(name), 10));
        }
        return Ok(());
    };
    // Components of the control plane need no place in their name.
    let given = [component.to_owned(), format!("{component}-cp")];
    let Some(found) = given.iter().find(|name| names.contains(*name)) else {
        bail!("no log {component}; there are {}", names.join(", "));
    };
    let mut log = std::fs::File::open(path(found))?;
    std::io::copy(&mut log, &mut std::io::stdout())?;
    Ok(())
}

//! Policies that are saved as editors do: what stays denied is never delivered meanwhile.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::Agent;

use crate::testbed::{ProbeSpec, SOON, Tcp, Testbed, policy_directory, probing, run};

/// How often a file is saved in each way.
const SAVES: u32 = 40;
/// Between two saves.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a file is gone: less than a deletion takes to be meant, by a margin for a busy machine.
const ABSENT: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(250)];
/// How often a file that is gone for so long is saved in each way.
const LATE_SAVES: u32 = 6;
/// Less than a deleted file's policies stay in force, by a margin for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(350);

const DENIED: [ProbeSpec; 1] = [("client", "server", Tcp(8081))];
const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];

/// The policy that isolates comes last, after much else: the beginning of the file is valid and says
/// less.
fn policies(round: u32) -> String {
    let filler: String = (0..200)
        .map(|index| {
            format!(
                "[[policy]]\nname = \"f{index}-{round}\"\nnamespace = \"shop\"\nsubject = \"\"\n"
            )
        })
        .collect();
    format!(
        "{filler}[[policy]]\nname = \"server\"\nnamespace = \"shop\"\nsubject = \"app=server\"\n\
         [[policy.ingress]]\nfrom = [{{ pods = \"app=client\" }}]\nports = [\"tcp/8080\"]\n"
    )
}

fn as_vim(path: &Path, text: &str) -> Result<()> {
    fs::rename(path, path.with_extension("toml~"))?;
    fs::write(path, text)?;
    Ok(fs::remove_file(path.with_extension("toml~"))?)
}

fn unlink_and_create(path: &Path, text: &str) -> Result<()> {
    fs::remove_file(path)?;
    Ok(fs::write(path, text)?)
}

/// In place, piece by piece, while a neighbour changes as well.
fn in_place(path: &Path, text: &str) -> Result<()> {
    let mut file = File::create(path)?;
    // Whole policies, so that each part is valid.
    for (number, part) in text.split_inclusive("subject = \"\"\n").enumerate() {
        file.write_all(part.as_bytes())?;
        if number % 50 == 0 {
            fs::write(
                path.with_file_name("neighbour.toml"),
                format!("# {number}\n"),
            )?;
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    Ok(())
}

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])
}

/// The control: without the file its policies go, after a moment.
fn expect_open_without(path: &Path, testbed: &Testbed, agent: &Agent) -> Result<()> {
    fs::remove_file(path)?;
    agent
        .wait_until(
            || Ok(testbed.all_answered(&DENIED)),
            SOON,
            "the end of the policies",
        )
        .context("the control")
}

fn has_policy(agent: &Agent, name: &str) -> Result<bool> {
    Ok(run(agent, &["policies"])?.contains(name))
}

#[test]
fn saving_a_file_in_any_way_opens_nothing() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("enforce", "")?;
    let path = policy_directory(&mut agent, &[("shop.toml", &policies(0))])?.join("shop.toml");
    let mut round = 0;
    for save in [as_vim, unlink_and_create, in_place] {
        probing(&testbed, &DENIED, &ALLOWED, || {
            for _ in 0..SAVES {
                round += 1;
                save(&path, &policies(round))?;
                std::thread::sleep(PAUSE);
            }
            Ok(())
        })?;
        // What was saved is in force, and at once. The machine may be busy with something else.
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            round += 1;
            save(&path, &policies(round))?;
            let saved = Instant::now();
            let marker = format!("f7-{round} ");
            agent.wait_until(|| has_policy(&agent, &marker), SOON, "a save")?;
            fastest = fastest.min(saved.elapsed());
        }
        ensure!(fastest < AT_ONCE, "{fastest:?}");
    }
    ensure!(!agent.stderr().contains("ERROR"), "{}", agent.stderr());
    expect_open_without(&path, &testbed, &agent)
}

/// A file is gone for a while and comes back, in each way that editors and people have.
#[test]
fn a_file_that_comes_back_late_opens_nothing() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("enforce", "")?;
    let path = policy_directory(&mut agent, &[("shop.toml", &policies(0))])?.join("shop.toml");
    let mut round = 0;
    for absent in ABSENT {
        for to in [Some("toml~"), None, Some("other.toml")] {
            probing(&testbed, &DENIED, &ALLOWED, || {
                for _ in 0..LATE_SAVES {
                    round += 1;
                    let former = to.map(|to| path.with_extension(to));
                    match &former {
                        Some(former) => fs::rename(&path, former)?,
                        None => fs::remove_file(&path)?,
                    }
                    std::thread::sleep(absent);
                    former.map_or(Ok(()), fs::remove_file)?;
                    fs::write(&path, policies(round))?;
                    std::thread::sleep(PAUSE);
                }
                Ok(())
            })?;
        }
    }
    let marker = format!("f7-{round} ");
    agent.wait_until(|| has_policy(&agent, &marker), SOON, "the last save")?;
    ensure!(!agent.stderr().contains("ERROR"), "{}", agent.stderr());
    expect_open_without(&path, &testbed, &agent)
}

#[test]
fn a_mode_that_cannot_be_stored_is_in_force_and_says_so() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("observe", "")?;
    testbed.expect_answered(&ALLOWED).context("the control")?;
    // The disk is full.
    let staged = agent.dir().join("state/modes.new");
    std::os::unix::fs::symlink("/dev/full", &staged)?;
    let answer = run(&agent, &["mode", "set", "shop", "lockdown"])?;
    ensure!(answer.contains("shop: lockdown"), "{answer}");
    ensure!(answer.contains("will not survive a restart"), "{answer}");
    testbed.expect_silent(&ALLOWED)?;
    let (status, _) = agent.status_text()?;
    ensure!(status.contains("will not survive a restart"), "{status}");
    ensure!(run(&agent, &["mode", "get"])?.contains("not stored"));
    // There is room again.
    let answer = run(&agent, &["mode", "set", "shop", "lockdown"])?;
    ensure!(!answer.contains("survive"), "{answer}");
    agent.kill()?;
    agent.restart()?;
    testbed.expect_silent(&ALLOWED)
}

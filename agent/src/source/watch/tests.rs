//! Every way in which files change gives a tick; what does not matter gives none.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const SOON: Duration = Duration::from_secs(5);

async fn ticks(watcher: &mut Watcher) {
    tokio::time::timeout(SOON, watcher.changed())
        .await
        .expect("a tick")
        .unwrap();
}

/// Proves that nothing is queued: the next tick comes from `probe` alone.
async fn is_quiet(watcher: &mut Watcher) {
    let outcome = tokio::time::timeout(Duration::from_millis(50), watcher.changed()).await;
    assert!(outcome.is_err(), "a tick for nothing");
}

#[tokio::test]
async fn changes_in_a_directory() {
    let directory = TempDir::new().unwrap();
    let mut watcher = Watcher::new(vec![directory.path().to_owned()]).unwrap();
    is_quiet(&mut watcher).await;
    let file = directory.path().join("a.toml");
    fs::write(&file, "x").unwrap();
    ticks(&mut watcher).await;
    is_quiet(&mut watcher).await;
    fs::write(&file, "y").unwrap();
    ticks(&mut watcher).await;
    fs::rename(&file, directory.path().join("b.toml")).unwrap();
    ticks(&mut watcher).await;
    fs::remove_file(directory.path().join("b.toml")).unwrap();
    ticks(&mut watcher).await;
    is_quiet(&mut watcher).await;
}

#[tokio::test]
async fn a_single_file_and_not_its_neighbours() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.toml");
    let mut watcher = Watcher::new(vec![file.clone()]).unwrap();
    fs::write(directory.path().join("other"), "x").unwrap();
    is_quiet(&mut watcher).await;
    fs::rename(directory.path().join("other"), &file).unwrap();
    ticks(&mut watcher).await;
}

#[tokio::test]
async fn a_config_map_swap() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..1")).unwrap();
    fs::write(at("..1/a.toml"), "x").unwrap();
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.toml", at("a.toml")).unwrap();
    for root in [directory.path().to_owned(), at("a.toml")] {
        let mut watcher = Watcher::new(vec![root]).unwrap();
        fs::create_dir_all(at("..2")).unwrap();
        fs::write(at("..2/a.toml"), "y").unwrap();
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        ticks(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_directory_that_changed_before_it_was_watched() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for version in ["..1", "..2"] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.toml"), version).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.toml", at("a.toml")).unwrap();
    let mut watcher = Watcher::new(vec![at("a.toml")]).unwrap();
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    ticks(&mut watcher).await;
    // Whoever got the tick has read the file by now.
    fs::write(at("..2/a.toml"), "3").unwrap();
    ticks(&mut watcher).await;
    is_quiet(&mut watcher).await;
    fs::write(at("..2/a.toml"), "4").unwrap();
    ticks(&mut watcher).await;
}

#[tokio::test]
async fn a_link_to_a_file_elsewhere() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = there.path().join("real.toml");
    fs::write(&target, "x").unwrap();
    symlink(&target, here.path().join("a.toml")).unwrap();
    let mut watcher = Watcher::new(vec![here.path().to_owned()]).unwrap();
    fs::write(there.path().join("unrelated"), "x").unwrap();
    is_quiet(&mut watcher).await;
    fs::write(&target, "y").unwrap();
    ticks(&mut watcher).await;
}

#[tokio::test]
async fn a_directory_that_comes_later() {
    let directory = TempDir::new().unwrap();
    let policies = directory.path().join("etc/policies");
    let mut watcher = Watcher::new(vec![policies.clone()]).unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    ticks(&mut watcher).await;
    fs::create_dir(&policies).unwrap();
    ticks(&mut watcher).await;
    fs::write(policies.join("a.toml"), "x").unwrap();
    ticks(&mut watcher).await;
    fs::rename(&policies, directory.path().join("etc/old")).unwrap();
    ticks(&mut watcher).await;
    fs::create_dir(&policies).unwrap();
    ticks(&mut watcher).await;
    fs::write(policies.join("b.toml"), "x").unwrap();
    ticks(&mut watcher).await;
}

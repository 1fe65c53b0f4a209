//! Every seed satisfies all properties, and requests reach the real server.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::control::respond;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    });
    found.collect()
}

fn run(target: fn(&[u8]), directory: &str) {
    let seeds = files(&Path::new(HERE).join(directory));
    assert!(!seeds.is_empty(), "no seeds in {directory}");
    for seed in seeds {
        target(&fs::read(seed).unwrap());
    }
}

#[test]
fn examples_satisfy_the_properties_of_files() {
    for target in [policy_toml, policy_yaml, inventory] {
        run(target, "../../policies");
    }
}

#[test]
fn seeds_satisfy_the_properties_of_flow_records() {
    run(flow, "seeds/flow");
}

#[test]
fn seeds_satisfy_the_properties_of_the_control_api() {
    run(control, "seeds/control");
}

#[test]
fn requests_reach_the_agents_server() {
    let status = |request: &str| {
        let response = respond(request.as_bytes());
        let text = String::from_utf8(response).unwrap();
        text.split(' ').nth(1).unwrap_or("none").to_owned()
    };
    let get = |path: &str| status(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert_eq!(get("/v1/status"), "200");
    assert_eq!(get("/v1/nothing"), "404");
    assert_eq!(get("/v1/flows?last=x"), "400");
    assert_eq!(get("/v1/flows?follow=true"), "200");
    let put = "PUT /v1/modes/shop HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n{\"mode\":\"enforce\"}";
    assert_eq!(status(put), "200");
    assert_eq!(status("nonsense\r\n\r\n"), "400");
}

//! The agent's output: flow records in Hubble's format, metrics without addresses, listings.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, Attributes};
use serde_json::Value;

use crate::testbed::{SOON, Tcp, Testbed, run};

const POLICIES: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
owner = "team-shop"
ticket = "SEC-1"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080"]

[[policy.ingress]]
action = "deny"
from = [{ namespaces = "env=test" }]
ports = ["tcp/8081"]
"#;

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[("env", "prod")]), ("lab", &[("env", "test")])])?
        .with(
            "shop/client",
            Attributes::labels(&[("app", "client")]).service_account("clerk"),
        )?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("lab/intruder", &[("app", "intruder")])
}

/// The flow records so far, one JSON object per line.
fn flows(agent: &Agent, more: &[&str]) -> Result<Vec<Value>> {
    let text = run(
        agent,
        &[&["flows", "--last", "50", "-o", "json"], more].concat(),
    )?;
    text.lines()
        .map(|line| serde_json::from_str(line).context("a line of flows"))
        .collect()
}

/// Waits for a flow record that matches.
fn flow(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut found = None;
    agent.wait_until(
        || {
            found = flows(agent, &[])?
                .into_iter()
                .find(|line| wanted(&line["flow"]));
            Ok(found.is_some())
        },
        SOON,
        what,
    )?;
    found.context("a flow")
}

#[test]
fn flow_records_name_endpoints_verdict_and_rule() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", POLICIES)?;
    testbed.expect_answered(&[("client", "server", Tcp(8080))])?;
    testbed.expect_silent(&[
        ("client", "server", Tcp(8081)),
        ("intruder", "server", Tcp(8081)),
    ])?;
    let (client, server) = (
        &testbed.host("client").workload,
        &testbed.host("server").workload,
    );
    for v6 in [false, true] {
        let from = |name: &str, direction: &str, verdict: &str| {
            let (name, direction, verdict) =
                (name.to_owned(), direction.to_owned(), verdict.to_owned());
            let target = server.ip(v6).to_string();
            move |flow: &Value| {
                flow["source"]["pod_name"] == name.as_str()
                    && flow["IP"]["destination"] == target.as_str()
                    && flow["traffic_direction"] == direction.as_str()
                    && flow["verdict"] == verdict.as_str()
            }
        };
        let line = flow(
            &agent,
            "an allowed flow",
            from("client", "INGRESS", "FORWARDED"),
        )?;
        ensure!(
            line["node_name"] == "node-1" && line["time"].is_string(),
            "{line}"
        );
        let allowed = &line["flow"];
        ensure!(allowed["source"]["namespace"] == "shop", "{allowed}");
        ensure!(allowed["destination"]["pod_name"] == "server", "{allowed}");
        ensure!(allowed["destination"]["namespace"] == "shop", "{allowed}");
        ensure!(
            allowed["IP"]["source"] == client.ip(v6).to_string(),
            "{allowed}"
        );
        ensure!(
            allowed["IP"]["ipVersion"] == if v6 { "IPv6" } else { "IPv4" },
            "{allowed}"
        );
        ensure!(
            allowed["l4"]["TCP"]["destination_port"] == 8080,
            "{allowed}"
        );
        ensure!(
            allowed["Type"] == "L3_L4" && allowed["is_reply"] == false,
            "{allowed}"
        );
        let labels = allowed["source"]["labels"].as_array().context("labels")?;
        ensure!(labels.contains(&"k8s:app=client".into()), "{allowed}");
        let by = &allowed["ingress_allowed_by"][0];
        ensure!(
            by["name"] == "server" && by["namespace"] == "shop",
            "{allowed}"
        );
        let ours = &allowed["extensions"]["value"];
        ensure!(
            ours["rule"] == "ingress[0]" && ours["policy"] == "shop/server",
            "{allowed}"
        );
        ensure!(
            ours["owner"] == "team-shop" && ours["ticket"] == "SEC-1",
            "{allowed}"
        );

        let line = flow(
            &agent,
            "a flow denied by default",
            from("client", "INGRESS", "DROPPED"),
        )?;
        let denied = &line["flow"];
        ensure!(denied["l4"]["TCP"]["destination_port"] == 8081, "{denied}");
        ensure!(
            denied["extensions"]["value"]["rule"] == "default-deny",
            "{denied}"
        );
        ensure!(denied["drop_reason_desc"] == "POLICY_DENIED", "{denied}");
        ensure!(denied["ingress_denied_by"].is_null(), "{denied}");

        let line = flow(
            &agent,
            "a flow denied by a rule",
            from("intruder", "INGRESS", "DROPPED"),
        )?;
        let denied = &line["flow"];
        ensure!(denied["source"]["namespace"] == "lab", "{denied}");
        ensure!(
            denied["ingress_denied_by"][0]["name"] == "server",
            "{denied}"
        );
        ensure!(
            denied["extensions"]["value"]["rule"] == "ingress[1]",
            "{denied}"
        );
    }
    for (filter, fits) in [
        (["--verdict", "denied"], ["DROPPED", ""]),
        (["--verdict", "allowed"], ["FORWARDED", ""]),
        (["-n", "lab"], ["DROPPED", "FORWARDED"]),
    ] {
        let lines = flows(&agent, &filter)?;
        ensure!(!lines.is_empty(), "{filter:?}");
        for line in &lines {
            let flow = &line["flow"];
            ensure!(
                fits.iter().any(|verdict| flow["verdict"] == *verdict),
                "{filter:?}: {line}"
            );
            let ends = [
                &flow["source"]["namespace"],
                &flow["destination"]["namespace"],
            ];
            ensure!(
                filter[0] != "-n" || ends.iter().any(|ns| **ns == "lab"),
                "{line}"
            );
        }
    }
    let people = run(&agent, &["flows", "--last", "50"])?;
    for word in [
        "shop/client",
        "shop/server",
        "lab/intruder",
        "default-deny",
        "shop/server ingress[1]",
    ] {
        ensure!(people.contains(word), "no {word} in:\n{people}");
    }
    Ok(())
}

#[test]
fn metrics_name_workloads_and_never_addresses() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", POLICIES)?;
    testbed.expect_answered(&[("client", "server", Tcp(8080))])?;
    testbed.expect_silent(&[("intruder", "server", Tcp(8080))])?;
    let mut page = String::new();
    agent.wait_until(
        || {
            page = agent.metrics()?;
            Ok(page.contains("workload=\"server\""))
        },
        SOON,
        "flows of the server in the metrics",
    )?;
    let drops = page.lines().find(|line| {
        line.starts_with("ringfence_drops_total{") && line.contains("reason=\"policy\"")
    });
    let drops = drops.with_context(|| format!("no drops in:\n{page}"))?;
    let count: f64 = drops.rsplit(' ').next().context("a value")?.parse()?;
    ensure!(count >= 2.0, "{drops}");
    for host in &testbed.hosts {
        for ip in host.workload.ips() {
            ensure!(!page.contains(&ip.to_string()), "{ip} in:\n{page}");
        }
    }
    for path in ["/livez", "/readyz"] {
        agent.http_get(path)?;
    }
    Ok(())
}

#[test]
fn listings_are_complete_and_correct() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("enforce", POLICIES)?;
    testbed.expect_answered(&[("client", "server", Tcp(8080))])?;
    let list = |command: &str| -> Result<Vec<Value>> {
        let text = run(&agent, &[command])?;
        ensure!(text.lines().count() > 1, "{command} as text:\n{text}");
        let value = agent.cli_json(&[command])?;
        Ok(value.as_array().context("a list")?.clone())
    };

    let endpoints = list("endpoints")?;
    ensure!(endpoints.len() == 3);
    let server = endpoints.iter().find(|e| e["workload"] == "shop/server");
    let server = server.with_context(|| format!("no shop/server in {endpoints:?}"))?;
    ensure!(
        server["attached"] == true && server["mode"] == "enforce",
        "{server}"
    );
    ensure!(
        server["ingress"] == "isolated" && server["egress"] == "open",
        "{server}"
    );
    ensure!(
        server["policies"] == serde_json::json!(["shop/server"]),
        "{server}"
    );
    let addresses = server["addresses"].as_array().context("addresses")?;
    ensure!(addresses.len() == 2, "{server}");

    let policies = list("policies")?;
    ensure!(policies.len() == 1, "{policies:?}");
    let policy = &policies[0];
    ensure!(
        policy["policy"] == "shop/server" && policy["owner"] == "team-shop",
        "{policy}"
    );
    ensure!(
        policy["ingress_rules"] == 2 && policy["egress_rules"].is_null(),
        "{policy}"
    );
    ensure!(policy["endpoints"] == 1 && policy["line"] == 2, "{policy}");

    let rules = list("rules")?;
    let rule = |name: &str| {
        rules
            .iter()
            .find(|r| r["rule"] == name && r["policy"] == "shop/server")
    };
    let used = rule("ingress[0]").with_context(|| format!("{rules:?}"))?;
    ensure!(
        used["action"] == "allow" && used["hits"].as_u64() >= Some(2),
        "{used}"
    );
    ensure!(used["last_hit"].is_string(), "{used}");
    let unused = rule("ingress[1]").with_context(|| format!("{rules:?}"))?;
    ensure!(
        unused["action"] == "deny" && unused["hits"] == 0,
        "{unused}"
    );
    let idle = agent.cli_json(&["rules", "--unused", "30d"])?;
    let idle = idle.as_array().context("a list")?;
    ensure!(
        idle.len() == 1 && idle[0]["rule"] == "ingress[1]",
        "{idle:?}"
    );

    let identities = list("identities")?;
    let of = |name: &str| identities.iter().find(|i| i["labels"]["app"] == name);
    let clerk = of("client").with_context(|| format!("{identities:?}"))?;
    // Properties that no policy names tell no identities apart.
    ensure!(
        clerk["namespace"] == "shop" && clerk["service_account"].is_null(),
        "{clerk}"
    );
    ensure!(
        clerk["kind"] == "workload" && clerk["addresses_count"] == 2,
        "{clerk}"
    );
    let (client, intruder) = (of("client"), of("intruder"));
    ensure!(
        client.map(|i| &i["class"]) != intruder.map(|i| &i["class"]),
        "a rule distinguishes them, so their peer classes must differ: {identities:?}"
    );
    for kind in ["host", "world"] {
        ensure!(
            identities.iter().any(|i| i["kind"] == kind),
            "no {kind}: {identities:?}"
        );
    }
    let status = agent.cli_json(&["status"])?;
    ensure!(
        status["ready"] == true && status["enforcing"] == true,
        "{status}"
    );
    ensure!(
        status["endpoints"] == 3 && status["attached"] == 3,
        "{status}"
    );
    Ok(())
}

#[test]
fn policy_explain_evaluates_the_policies_in_force() -> Result<()> {
    let testbed = testbed()?;
    let agent = testbed.agent("observe", POLICIES)?;
    let explain = |from: &str, port: &str, more: &[&str]| {
        let ends = ["policy", "explain", "--from", from, "--to", "shop/server"];
        [&ends[..], &["--port", port], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let ask = |from: &str, port: &str, more: &[&str]| {
        let arguments = explain(from, port, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&agent, &arguments)
    };
    let denied = ask("lab/intruder", "tcp/8081", &[])?;
    for line in [
        "ingress of shop/server: deny by ingress[1] of shop/server",
        "  namespace shop observes: it would be dropped, and passes",
        "    owner: \"team-shop\"",
    ] {
        ensure!(
            denied.lines().any(|its| its == line),
            "no {line:?} in:\n{denied}"
        );
    }
    let allowed: Value = serde_json::from_str(&ask("shop/client", "tcp/8080", &["-o", "json"])?)?;
    ensure!(allowed["verdict"] == "allow", "{allowed}");
    ensure!(
        allowed["ingress"]["live"]
            == serde_json::json!(
                { "namespace": "shop", "mode": "observe", "attached": true }
            ),
        "{allowed}"
    );
    let unknown = explain("shop/missing", "tcp/1", &[]);
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
    let output = agent.cli(&unknown)?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}

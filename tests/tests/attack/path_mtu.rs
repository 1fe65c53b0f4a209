//! Path MTU discovery: the host's errors about an allowed connection arrive, and the connection
//! continues with smaller packets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, Attributes, Node};

const SOON: Duration = Duration::from_secs(20);
const BYTES: usize = 300_000;
const POLICY: &str = "[[policy]]\nname = \"out\"\nnamespace = \"shop\"\nsubject = \"\"\n\
                      ingress = []\n\n[[policy.egress]]\nto = [{ entity = \"world\" }]\nports = [\"tcp/8080\"]\n";

#[test]
fn path_mtu_discovery_works_for_an_allowed_connection() -> Result<()> {
    let node = Node::new()?;
    let client = node.workload("shop", "client")?;
    let outside = node.outside("outside")?;
    // The next hop has a smaller MTU than either end.
    node.ns
        .ip(&format!("link set {} mtu 1300\n", outside.interface))?;
    let inventory = node.inventory().namespace("shop", &[]);
    let spec = AgentSpec {
        inventory: inventory.local(&client, &Attributes::default()).build(),
        policies: POLICY.to_owned(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let _agent = Agent::start(&node, &spec)?;
    for v6 in [false, true] {
        let to = SocketAddr::new(outside.ip(v6), 8080);
        let listener = outside.ns.run(|| TcpListener::bind(to))??;
        let sender = client.ns.spawn(move || -> std::io::Result<()> {
            let mut stream = TcpStream::connect_timeout(&to, SOON)?;
            stream.set_write_timeout(Some(SOON))?;
            stream.write_all(&vec![0x5a; BYTES])
        })?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SOON))?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).context("receiving")?;
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        sent.context("sending")?;
        ensure!(
            received.len() == BYTES,
            "{} bytes arrived, v6 {v6}",
            received.len()
        );
        let family = if v6 { "-6" } else { "-4" };
        let address = outside.ip(v6).to_string();
        let route = client
            .ns
            .command("ip")
            .args([family, "route", "get", &address])
            .output()?;
        let route = String::from_utf8(route.stdout)?;
        ensure!(
            route.contains("mtu 1300"),
            "the client did not learn the path MTU: {route}"
        );
    }
    Ok(())
}

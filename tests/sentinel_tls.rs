//! A Sentinel among servers, peers and clients that speak TLS.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::Ipv4Addr;
use std::process::Command;

use support::lab::{Redis, Runtime, free_address, program};
use support::quorum::{Make, NAME, Quorum, Watcher};
use support::resp::{Client, Place, Reply};
use support::{Scratch, eventually};

on_every_runtime!(
    an_encrypted_quorum_with_genuine_sentinels_replaces_a_killed_master,
    clients_need_tls_and_a_certificate_on_the_encrypted_port,
    a_server_of_another_authority_is_refused_and_the_log_says_why,
    a_file_that_promises_tls_without_certificates_does_not_start,
    beside_pools_clients_and_peers_come_in_by_tls,
);

/// A certificate authority, and a host that it signed.
struct Papers {
    scratch: Scratch,
}

impl Papers {
    fn make() -> Self {
        let scratch = Scratch::new();
        let run = |line: &str| {
            let mut command = Command::new("openssl");
            command.args(line.split_whitespace()).current_dir(scratch.path(""));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}: {}", support::stderr(&output));
        };
        run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca");
        run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out host.key");
        run("req -new -key host.key -subj /CN=host -out host.csr");
        scratch.write("ext", "basicConstraints=CA:FALSE\n");
        run("x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
             -extfile ext -out host.pem");
        Self { scratch }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path(name).display().to_string()
    }

    /// Returns directives: what to listen on, and what proves who one is.
    fn directives(&self, port: u16) -> Vec<String> {
        vec![
            format!("tls-port {port}"),
            format!("tls-cert-file {}", self.path("host.pem")),
            format!("tls-key-file {}", self.path("host.key")),
            format!("tls-ca-cert-file {}", self.path("ca.pem")),
            "tls-replication yes".to_owned(),
        ]
    }
}

/// A server, and where it is reached by TLS.
struct Encrypted {
    redis: Redis,
    port: u16,
}

impl Encrypted {
    fn start(papers: &Papers, more: &[&str]) -> Self {
        let port = free_address(Ipv4Addr::LOCALHOST.into()).port();
        let directives = papers.directives(port).join(" --");
        let directives = format!("--{directives} --repl-diskless-sync-delay 0");
        let options: Vec<&str> =
            directives.split_whitespace().chain(more.iter().copied()).collect();
        Self { redis: Redis::start_with(Ipv4Addr::LOCALHOST.into(), &options), port }
    }
}

fn watch(make: Make, papers: &Papers, port: u16, quorum: usize, more: &str) -> (Watcher, u16) {
    let own = free_address(Ipv4Addr::LOCALHOST.into()).port();
    let lines = papers.directives(own).join("\n");
    let lines = format!("{lines}\nsentinel down-after-milliseconds {NAME} 3000\n{more}");
    (Watcher::start_at(make, port, quorum, &lines), own)
}

fn an_encrypted_quorum_with_genuine_sentinels_replaces_a_killed_master(runtime: Runtime) {
    need!("redis-server", "redis-sentinel", "openssl");
    let papers = Papers::make();
    let master = Encrypted::start(&papers, &[]);
    let port = master.port.to_string();
    let replica = Encrypted::start(&papers, &["--replicaof", "127.0.0.1", &port]);
    let makes = [Make::Ours(runtime), Make::Genuine, Make::Ours(runtime)];
    let watchers = makes.map(|make| watch(make, &papers, master.port, 2, ""));
    let (watchers, ports): (Vec<Watcher>, Vec<u16>) = watchers.into_iter().unzip();
    let mut all = Quorum { servers: vec![master.redis, replica.redis], watchers };
    all.wait_until_complete();
    // Peers tell one another where they are reached by TLS.
    for (at, watcher) in all.watchers.iter().enumerate() {
        let peers = watcher.ask(&["SENTINEL", "SENTINELS", NAME]);
        let known: Vec<String> = peers.items().iter().map(|peer| peer.items()[5].text()).collect();
        let others = ports.iter().enumerate().filter(|(other, _)| *other != at);
        for (_, port) in others {
            assert!(known.contains(&port.to_string()), "{port} in {known:?}");
        }
    }
    all.servers[0].kill();
    let new = replica.port;
    eventually(&format!("all switch to {new}; {}", all.logs()), || {
        all.watchers.iter().all(|watcher| watcher.master_port() == new).then_some(())
    });
    eventually("the replica is the master", || {
        let info = all.servers[1].client().try_ask(&["INFO", "replication"]).ok()?;
        info.text().contains("role:master").then_some(())
    });
    assert!(all.servers[0].run(), "the old master starts again");
    eventually(&format!("it follows; {}", all.logs()), || {
        let info = all.servers[0].client().try_ask(&["INFO", "replication"]).ok()?;
        let follows = format!("master_port:{new}\r\nmaster_link_status:up");
        info.text().contains(&follows).then_some(())
    });
}

fn clients_need_tls_and_a_certificate_on_the_encrypted_port(runtime: Runtime) {
    need!("redis-server", "redis-cli", "openssl");
    let papers = Papers::make();
    let master = Encrypted::start(&papers, &[]);
    let ask = |port: u16, with: &str, words: &[&str]| {
        let mut command = Command::new(program("redis-cli").unwrap());
        command.args(["-p", &port.to_string()]);
        let with = with.replace("PAPERS", &papers.path(""));
        let output = command.args(with.split_whitespace()).args(words).output().unwrap();
        format!("{}{}", support::stdout(&output), support::stderr(&output))
    };
    let whole = "--tls --cacert PAPERS/ca.pem --cert PAPERS/host.pem --key PAPERS/host.key";
    let half = "--tls --cacert PAPERS/ca.pem";
    let where_is_it = ["SENTINEL", "get-master-addr-by-name", NAME];
    let address = format!("127.0.0.1\n{}\n", master.port);
    for (more, is_enough) in [
        ("", false),
        ("tls-auth-clients optional", true),
        ("tls-auth-clients no\ntls-protocols TLSv1.2", true),
    ] {
        let (watcher, port) = watch(Make::Ours(runtime), &papers, master.port, 1, more);
        assert_eq!(ask(port, whole, &where_is_it), address, "{more}; {}", watcher.log());
        let without = ask(port, half, &where_is_it);
        assert_eq!(without == address, is_enough, "{more}: {without}");
        assert_ne!(ask(port, "", &where_is_it), address, "{more}");
        // The whole of a reply of several kilobytes, and many requests at once.
        let info = ask(port, whole, &["SENTINEL", "INFO-CACHE", NAME]);
        assert!(info.contains("# Keyspace") || info.contains("# Replication"), "{info}");
        assert!(
            ask(port, whole, &["INFO"]).contains(&format!("tcp_port:{}", watcher.place.port()))
        );
        let log = watcher.log();
        assert!(log.contains("TLS failed on a connection from client 127.0.0.1"), "{log}");
        assert_eq!(log.contains("it has no certificate"), !is_enough, "{log}");
    }
}

fn a_server_of_another_authority_is_refused_and_the_log_says_why(runtime: Runtime) {
    need!("redis-server", "openssl");
    let (papers, others) = (Papers::make(), Papers::make());
    let master = Encrypted::start(&others, &[]);
    let (watcher, _) = watch(Make::Ours(runtime), &papers, master.port, 1, "");
    let said = format!(
        "TLS failed on a connection to server 127.0.0.1:{}: its certificate is signed by no CA of \
         tls-ca-cert-file and tls-ca-cert-dir",
        master.port
    );
    eventually("the log says it", || watcher.log().contains(&said).then_some(()));
    eventually("it counts as down", || watcher.field("flags").contains("s_down").then_some(()));
    // Once, although it is tried again each second.
    assert_eq!(watcher.log().matches("TLS failed").count(), 1, "{}", watcher.log());
}

fn a_file_that_promises_tls_without_certificates_does_not_start(runtime: Runtime) {
    let scratch = Scratch::new();
    let port = support::free_port();
    for (lines, words) in [
        (format!("tls-port {port}"), "tls-port needs tls-cert-file and tls-key-file"),
        ("tls-replication yes".to_owned(), "no CA certificate says who is to be trusted"),
        (format!("tls-port {port}\ntls-cert-file none.pem"), "none.pem can't be read"),
    ] {
        scratch.write("s.conf", &format!("port 0\n{lines}\n"));
        let mut command = scratch.command("redis-sentinel", &["s.conf"]);
        let output = command.env("RINGKEEPER_RUNTIME", runtime.name()).output().unwrap();
        let text = support::stdout(&output) + &support::stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(words), "{lines}: {text}");
    }
}

fn beside_pools_clients_and_peers_come_in_by_tls(runtime: Runtime) {
    need!("redis-server", "redis-cli", "openssl");
    let papers = Papers::make();
    let master = Redis::start();
    let [pool, plain, encrypted] = [(); 3].map(|()| support::free_port());
    let scratch = Scratch::new();
    let pools = format!(
        "alpha:\n  listen: 127.0.0.1:{pool}\n  redis: true\n  servers:\n{}\n",
        master.line("")
    );
    scratch.write("alpha.yml", &pools);
    let lines: Vec<String> = papers.directives(encrypted);
    let (replication, lines): (Vec<String>, Vec<String>) =
        lines.into_iter().partition(|line| line.starts_with("tls-replication"));
    let watch = format!(
        "port {plain}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {} 1\n{}\n",
        master.place.port(),
        lines.join("\n")
    );
    scratch.write("sentinel.conf", &watch);
    let arguments = [
        "run",
        "--nutcracker",
        "alpha.yml",
        "--sentinel",
        "sentinel.conf",
        "--runtime",
        runtime.name(),
        "--stats-port",
        "0",
    ];
    let process = scratch.start("ringkeeper", &arguments);
    let place = |port: u16| Place::Tcp(([127, 0, 0, 1], port).into());
    eventually(&format!("the pool serves: {}", scratch.read("stderr")), || {
        let mut client = Client::connect(&place(pool)).ok()?;
        (client.try_ask(&["SET", "name", "laohu"]).ok()? == Reply::ok()).then_some(())
    });
    let address = format!("127.0.0.1\n{}\n", master.place.port());
    let cli = |more: &[&str]| {
        let mut command = Command::new(program("redis-cli").unwrap());
        command.args(["-p", &encrypted.to_string()]).args(more);
        command.args(["SENTINEL", "get-master-addr-by-name", NAME]);
        support::stdout(&command.output().unwrap())
    };
    let files = ["ca.pem", "host.pem", "host.key"].map(|name| papers.path(name));
    let whole = ["--tls", "--cacert", &files[0], "--cert", &files[1], "--key", &files[2]];
    assert_eq!(cli(&whole), address, "{}", scratch.read("stderr"));
    assert_ne!(cli(&[]), address);
    let open = Client::connect(&place(plain)).unwrap().ask(&["SENTINEL", "CKQUORUM", NAME]);
    assert!(open.text().starts_with("OK 1 usable"), "{open:?}");
    drop(process);
    // At a place of its own: what a killed process had open may be closed a moment after its end.
    let other = support::free_port();
    scratch.write("alpha.yml", &pools.replace(&pool.to_string(), &other.to_string()));
    // Pools would be sent to ports where they are not understood.
    scratch.write("sentinel.conf", &(watch + &replication.join("\n") + "\n"));
    let output = scratch.run("ringkeeper", &arguments);
    let text = support::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("tls-replication: pools would be sent"), "{text}");
}

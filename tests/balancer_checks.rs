//! Checks of real servers beside what they check: genuine Redis servers and Sentinels, and pages
//! by TLS.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use support::lab::{Redis, Runtime};
use support::quorum::{Make, NAME, Watcher};
use support::resp::{Client, Place};
use support::{Process, Scratch, eventually, free_port};

const OFTEN: &str = "delay_loop 0.1\n warmup 0\n retry 0\n delay_before_retry 0.1\n";

/// A virtual server whose servers are down until their checks have succeeded.
struct Lab {
    scratch: Scratch,
    _process: Process,
    at: SocketAddr,
}

impl Lab {
    fn start(runtime: Runtime, alpha: &str, servers: &[(u16, String)]) -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let server = |(port, check): &(u16, String)| {
            format!("real_server 127.0.0.1 {port} {{\n {check}\n }}\n")
        };
        let servers: String = servers.iter().map(server).collect();
        let text = format!(
            "virtual_server 127.0.0.1 {} {{\n protocol TCP\n lb_algo rr\n {alpha}\n {servers} }}\n",
            at.port()
        );
        let scratch = Scratch::new();
        scratch.write("keepalived.conf", &text);
        let arguments = ["run", "--runtime", runtime.name(), "--keepalived", "keepalived.conf"];
        let process = scratch.start("ringkeeper", &arguments);
        eventually("the virtual server", || {
            let is_up = TcpStream::connect(at).is_ok();
            is_up.then_some(())
        });
        Self { scratch, _process: process, at }
    }

    /// Waits until the last that was said of a server is whether it is up.
    fn wait_for(&self, port: u16, is_up: bool) {
        let last = || {
            let log = self.scratch.read("stderr");
            let about = format!("127.0.0.1:{port}");
            let mut lines = log.lines().filter(|line| line.contains(&about));
            lines.rfind(|line| line.contains("server is ")).map(str::to_owned)
        };
        let wanted = if is_up { "server is up" } else { "server is down" };
        eventually(&format!("{wanted}: {port} in {}", self.scratch.read("stderr")), || {
            last().is_some_and(|line| line.contains(wanted)).then_some(())
        });
    }

    /// Returns the port of the Redis server that a client gets; none while there is nobody.
    fn redis_port(&self) -> Option<u16> {
        let mut client = Client::connect(&Place::Tcp(self.at)).ok()?;
        let reply = client.try_ask(&["CONFIG", "GET", "port"]).ok()?;
        reply.items().get(1)?.text().parse().ok()
    }

    fn wait_for_redis(&self, port: u16) {
        eventually(&format!("the Redis server on {port}"), || {
            (self.redis_port() == Some(port)).then_some(())
        });
    }
}

fn replica_of(redis: &Redis, master: &Redis) {
    let port = master.place.port().to_string();
    redis.client().ask(&["REPLICAOF", "127.0.0.1", &port]);
    eventually("a replica in step", || {
        let info = redis.client().ask(&["INFO", "replication"]).text();
        info.contains("master_link_status:up").then_some(())
    });
}

on_every_runtime!(
    clients_follow_the_role_of_genuine_redis_servers,
    clients_follow_what_a_genuine_sentinel_says,
    pages_are_checked_by_tls_whoever_signed_the_certificate,
);

fn clients_follow_the_role_of_genuine_redis_servers(runtime: Runtime) {
    need!("redis-server");
    let (one, two) = (Redis::start(), Redis::start());
    replica_of(&two, &one);
    let ports = [one.place.port(), two.place.port()];
    let check = |role: &str| format!("REDIS_CHECK {{\n {OFTEN} role {role}\n }}");
    let masters = Lab::start(runtime, "alpha", &ports.map(|port| (port, check("master"))));
    let replicas = Lab::start(runtime, "alpha", &ports.map(|port| (port, check("replica"))));
    masters.wait_for_redis(ports[0]);
    replicas.wait_for_redis(ports[1]);
    // They change places.
    two.client().ask(&["REPLICAOF", "NO", "ONE"]);
    replica_of(&one, &two);
    masters.wait_for_redis(ports[1]);
    masters.wait_for(ports[0], false);
    replicas.wait_for_redis(ports[0]);
    // A password that nobody told the check.
    two.client().ask(&["CONFIG", "SET", "requirepass", "secret"]);
    masters.wait_for(ports[1], false);
    let check = format!("REDIS_CHECK {{\n {OFTEN} role master\n auth_pass secret\n }}");
    let knowing = Lab::start(runtime, "alpha", &[(ports[1], check)]);
    knowing.wait_for(ports[1], true);
}

fn clients_follow_what_a_genuine_sentinel_says(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let (one, two) = (Redis::start(), Redis::start());
    replica_of(&two, &one);
    let sentinel = Watcher::start(Make::Genuine, &one, 1, "");
    eventually("the replica is known", || (sentinel.field("num-slaves") == "1").then_some(()));
    let ports = [one.place.port(), two.place.port()];
    let check = format!(
        "REDIS_CHECK {{\n {OFTEN} sentinel 127.0.0.1 {}\n sentinel_master {NAME}\n }}",
        sentinel.place.port()
    );
    let lab = Lab::start(runtime, "alpha", &ports.map(|port| (port, check.clone())));
    lab.wait_for_redis(ports[0]);
    // It refuses until it has looked at both.
    eventually("a failover begins", || {
        (sentinel.ask(&["SENTINEL", "FAILOVER", NAME]).text() == "OK").then_some(())
    });
    eventually("the failover", || (sentinel.master_port() == ports[1]).then_some(()));
    lab.wait_for_redis(ports[1]);
    lab.wait_for(ports[0], false);
    // Nobody to ask is no verdict.
    drop(sentinel);
    lab.wait_for_redis(ports[1]);
}

/// Serves the file `page` by TLS, and notes the name that it is asked for.
const SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = open("page", "rb").read()
        self.send_response(200 if self.path == "/up" else 404)
        self.end_headers()
        self.wfile.write(page)
    def log_message(self, *_):
        pass
def named(connection, name, context):
    if name:
        open("name", "w").write(name)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("certificate.pem", "key.pem")
context.sni_callback = named
class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        plain, address = self.socket.accept()
        return plain, address
    def finish_request(self, request, address):
        try:
            with context.wrap_socket(request, server_side=True) as covered:
                self.RequestHandlerClass(covered, address, self)
        except OSError:
            pass
    def handle_error(self, *_):
        pass
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

/// The MD5 digest of `hello world`.
const DIGEST: &str = "5eb63bbbe01eeed093cb22bb8f5acdc3";

fn pages_are_checked_by_tls_whoever_signed_the_certificate(runtime: Runtime) {
    need!("openssl", "python3");
    let scratch = Scratch::new();
    scratch.write("page", "hello world");
    scratch.write("server.py", SERVER);
    let words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=nobody.example -keyout key.pem \
                 -out certificate.pem";
    let made = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(scratch.path(""))
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let port = free_port();
    let mut command = Command::new("python3");
    command.arg("server.py").arg(port.to_string()).current_dir(scratch.path(""));
    let server = Process::new(command.stdin(Stdio::null()).spawn().unwrap());
    eventually("the server", || TcpStream::connect(("127.0.0.1", port)).ok());
    // Somebody who takes connections and says nothing of TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in plain.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut &stream, b"HTTP/1.0 200 OK\r\n\r\nhello world");
        }
    });
    let check = |url: &str, more: &str| {
        format!("SSL_GET {{\n {OFTEN} connect_timeout 2\n {more}\n url {{\n {url}\n }}\n }}")
    };
    let good =
        check(&format!("path /up\n digest {DIGEST}\n virtualhost www.example"), "enable_sni");
    let lab = Lab::start(runtime, "alpha", &[(port, good.clone())]);
    lab.wait_for(port, true);
    let uncovered = Lab::start(runtime, "", &[(plain_port, good)]);
    uncovered.wait_for(plain_port, false);
    assert_eq!(scratch.read("name"), "www.example");
    scratch.write("page", "hello there");
    lab.wait_for(port, false);
    scratch.write("page", "hello world");
    lab.wait_for(port, true);
    // The status counts too, and the server's end.
    let missing = Lab::start(runtime, "", &[(port, check("path /missing\n status_code 200", ""))]);
    missing.wait_for(port, false);
    drop(server);
    lab.wait_for(port, false);
}

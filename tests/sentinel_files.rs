//! Directives of an ordinary server that a Sentinel heeds, beside a genuine one with the same.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use support::lab::{Redis, Runtime, program};
use support::quorum::{Make, NAME, Quorum, Watcher};
use support::resp::{Client, Reply};
use support::{Scratch, eventually};

on_every_runtime!(
    connections_come_from_the_address_of_the_file,
    an_address_that_the_host_does_not_have_reaches_nobody,
    users_of_an_acl_file_are_read_saved_and_read_again,
    an_acl_file_that_is_missing_wrong_or_one_of_two_keeps_it_from_starting,
);

fn makes(runtime: Runtime) -> [Make; 2] {
    [Make::Ours(runtime), Make::Genuine]
}

fn connections_come_from_the_address_of_the_file(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    // In protected mode a server knows but one address of its own host.
    let open = ["--protected-mode", "no"];
    let servers = vec![Redis::start_with(Ipv4Addr::LOCALHOST.into(), &open)];
    let lines = "bind 127.0.0.1 127.0.0.5\nbind-source-addr 127.0.0.5\n";
    let watchers = makes(runtime).map(|make| Watcher::start(make, &servers[0], 2, lines));
    let all = Quorum { servers, watchers: watchers.into() };
    all.wait_until_complete();
    let [ours, theirs] = &all.watchers[..] else { panic!("two Sentinels") };
    for server in &all.servers {
        let clients = server.client().ask(&["CLIENT", "LIST"]).text();
        for (watcher, other) in [(ours, theirs), (theirs, ours)] {
            let id = watcher.ask(&["SENTINEL", "MYID"]).text();
            let name = format!("name=sentinel-{}-", &id[..8]);
            let own: Vec<&str> = clients.lines().filter(|line| line.contains(&name)).collect();
            assert_eq!(own.len(), 2, "commands and hellos: {clients}");
            assert!(own.iter().all(|line| line.contains(" addr=127.0.0.5:")), "{clients}");
            // What peers are told is where connections come from.
            let peers = other.ask(&["SENTINEL", "SENTINELS", NAME]);
            let fields: Vec<String> = peers.items()[0].items().iter().map(Reply::text).collect();
            let at = fields.iter().position(|field| field == "ip").unwrap() + 1;
            assert_eq!(fields[at], "127.0.0.5");
        }
    }
}

fn an_address_that_the_host_does_not_have_reaches_nobody(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let servers = support::quorum::start_servers(0);
    // Nobody has an address that is meant for examples.
    let lines =
        format!("bind-source-addr 192.0.2.7\nsentinel down-after-milliseconds {NAME} 500\n");
    for make in makes(runtime) {
        let watcher = Watcher::start(make, &servers[0], 2, &lines);
        eventually(&format!("{make:?} reaches nobody"), || {
            (watcher.field("flags") == "s_down,master,disconnected").then_some(())
        });
    }
    assert!(!servers[0].client().ask(&["CLIENT", "LIST"]).text().contains("sentinel-"));
}

/// A Sentinel whose users stand in a file.
struct Guarded {
    watcher: Watcher,
    folder: Scratch,
}

impl Guarded {
    fn start(make: Make, port: u16, users: &str) -> Self {
        let folder = Scratch::new();
        folder.write("users.acl", users);
        let lines = format!("aclfile {}\n", folder.path("users.acl").display());
        Self { watcher: Watcher::start_at(make, port, 1, &lines), folder }
    }

    /// Returns an answer without the path of the file.
    fn say(&self, words: &[&str]) -> Reply {
        let path = self.folder.path("users.acl").display().to_string();
        let nameless = |text: &str| text.replace(&path, "FILE");
        match self.watcher.ask(words) {
            Reply::Error(text) => Reply::Error(nameless(&text)),
            other => other,
        }
    }
}

fn users_of_an_acl_file_are_read_saved_and_read_again(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let servers = support::quorum::start_servers(0);
    // Redis tells commands of one user in no fixed order.
    let users = "user bob on >secret +ping &*\n\nuser al on nopass +@all &*\n";
    let all = makes(runtime).map(|make| Guarded::start(make, servers[0].place.port(), users));
    let both = |words: &[&str]| {
        let [ours, theirs] = [&all[0], &all[1]].map(|one| one.say(words));
        assert_eq!(ours, theirs, "{words:?}");
        ours
    };
    let told = both(&["ACL", "LIST"]);
    assert_eq!(told.items().len(), 3, "{told:?}");
    let mut clients = all.each_ref().map(|one| {
        let mut client = one.watcher.client();
        assert_eq!(client.ask(&["AUTH", "bob", "secret"]), Reply::ok());
        client
    });
    both(&["ACL", "SETUSER", "eve", "on", ">x", "+info"]);
    // A change is not in the file before it is saved there, and in no other file ever.
    both(&["SENTINEL", "FLUSHCONFIG"]);
    let file = |one: &Guarded| one.folder.read("users.acl");
    assert!(all.iter().all(|one| file(one) == users && !one.watcher.file().contains("\nuser ")));
    assert_eq!(both(&["ACL", "SAVE"]), Reply::ok());
    assert!(file(&all[0]).contains("user eve on #"), "{}", file(&all[0]));
    assert_eq!(file(&all[0]), file(&all[1]));
    both(&["ACL", "DELUSER", "eve"]);
    assert_eq!(both(&["ACL", "LOAD"]), Reply::ok());
    assert_eq!(both(&["ACL", "USERS"]).items().len(), 4);
    let is_gone = |client: &mut Client| client.try_ask(&["PING"]).is_err();
    assert!(clients.iter_mut().all(is_gone), "what a user may do was decided anew");
    let bad = "user bob on >other +ping\nuser eve on +nosuch\nbad\nuser x y on\nuser bob off\n";
    all.iter().for_each(|one| one.folder.write("users.acl", bad));
    assert!(both(&["ACL", "LOAD"]).text().contains("FILE:2: Error in applying"));
    assert_eq!(both(&["ACL", "USERS"]).items().len(), 4);
    all.iter().for_each(|one| fs::remove_file(one.folder.path("users.acl")).unwrap());
    assert!(both(&["ACL", "LOAD"]).text().contains("No such file or directory"));
    assert_eq!(both(&["ACL", "SAVE"]), Reply::ok());
    assert_eq!(file(&all[0]), file(&all[1]));
    for one in all {
        let mut watcher = one.watcher;
        watcher.kill();
        watcher.run();
        assert_eq!(watcher.ask(&["ACL", "USERS"]).items().len(), 4);
        assert!(watcher.file().contains("aclfile "), "{}", watcher.file());
    }
}

fn an_acl_file_that_is_missing_wrong_or_one_of_two_keeps_it_from_starting(runtime: Runtime) {
    need!("redis-sentinel");
    let scratch = Scratch::new();
    scratch.write("good.acl", "user default on nopass +@all &*\n");
    scratch.write("bad.acl", "user bob on +nosuch\n");
    let port = support::free_port();
    let head = format!("port {port}\nsentinel monitor {NAME} 127.0.0.1 1 1\n");
    for lines in
        ["aclfile none.acl", "aclfile bad.acl", "aclfile good.acl\nuser eve on nopass +@all"]
    {
        for make in makes(runtime) {
            scratch.write("sentinel.conf", &format!("{head}{lines}\n"));
            let mut command = match make {
                Make::Ours(_) => Command::new(scratch.path("redis-sentinel")),
                Make::Genuine => Command::new(program("redis-sentinel").unwrap()),
            };
            command.arg("sentinel.conf").env("RINGKEEPER_RUNTIME", runtime.name());
            let output = command.current_dir(scratch.path("")).output().unwrap();
            let text =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(1), "{lines}: {text}");
            let word = if lines.contains("user ") { "users" } else { "ACL" };
            assert!(text.contains(word), "{make:?}, {lines}: {text}");
        }
    }
}

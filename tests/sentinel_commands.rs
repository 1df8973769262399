//! What a Sentinel answers, beside a genuine one that watches the same master; its events, its
//! scripts, and the clients that operators use.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Commands;
use redis::sentinel::{SentinelClient, SentinelServerType};

use support::eventually;
use support::lab::{Runtime, program};
use support::python;
use support::quorum::{Make, NAME, Quorum, Watcher, start_servers};
use support::resp::Reply;

on_every_runtime!(
    replies_have_the_words_and_fields_of_a_genuine_sentinel,
    users_and_commands_are_told_in_the_same_words,
    users_of_the_file_are_held_to_and_kept,
    servers_whose_commands_have_other_names_are_failed_over,
    masters_with_host_names_are_known_by_them,
    subscribers_hear_every_step_of_a_fail_over,
    a_planned_fail_over_loses_no_acknowledged_write,
    settings_are_changed_written_and_refused_in_the_same_words,
    scripts_run_with_their_arguments_and_without_our_descriptors,
    passwords_are_asked_for_and_given,
    redis_py_and_redis_cli_find_the_master,
    redis_rs_finds_the_servers_and_follows_a_switch,
    a_process_without_a_file_to_write_does_not_start,
    the_native_form_only_reads_its_file_and_remembers_beside_it,
    a_peer_that_is_gone_for_good_is_forgotten_and_no_majority_with_it,
);

fn pair(runtime: Runtime) -> Quorum {
    Quorum::start_with(&[Make::Ours(runtime), Make::Genuine], 1, 5000, "")
}

/// What a reply looks like, without what differs between two Sentinels or two moments.
fn shape(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Array(items) => {
            let mut lines = vec![format!("array of {}", items.len())];
            lines.extend(items.iter().flat_map(shape));
            lines
        }
        Reply::Bulk(bytes) => vec![format!("${}", String::from_utf8_lossy(bytes))],
        other => vec![format!("{other:?}")],
    }
}

/// Fields whose values are a moment's, or of the Sentinel that is asked.
const VARIES: [&str; 12] = [
    "runid",
    "name",
    "ip",
    "port",
    "link-pending-commands",
    "last-ping-sent",
    "last-ok-ping-reply",
    "last-ping-reply",
    "info-refresh",
    "role-reported-time",
    "slave-repl-offset",
    "last-hello-message",
];

/// Returns the names of the fields of a map and the values of those that do not vary.
fn fields(reply: &Reply, of_peer: bool) -> Vec<(String, String)> {
    let pairs = reply.items().chunks(2);
    pairs
        .map(|pair| {
            let (name, value) = (pair[0].text(), pair[1].text());
            let identity = ["runid", "name", "ip", "port"].contains(&name.as_str());
            let varies = VARIES.contains(&name.as_str()) && (of_peer || !identity);
            (name, if varies { "…".to_owned() } else { value })
        })
        .collect()
}

/// Waits until two Sentinels tell the same.
fn settles<T: PartialEq + Debug>(ask: impl Fn() -> (Reply, Reply), view: impl Fn(&Reply) -> T) {
    let mut last = None;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let (mine, genuine) = ask();
        let (mine, genuine) = (view(&mine), view(&genuine));
        if mine == genuine {
            return;
        }
        last = Some((mine, genuine));
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mine, genuine) = last.unwrap();
    assert_eq!(mine, genuine);
}

fn replies_have_the_words_and_fields_of_a_genuine_sentinel(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let all = pair(runtime);
    let (ours, theirs) = (&all.watchers[0], &all.watchers[1]);
    let port = all.servers[0].place.port().to_string();
    let commands = test_commands(&port);
    for line in commands.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut genuine = shape(&theirs.ask(&words));
        if line == "SENTINEL DEBUG" {
            // A tilt is shorter with us: our clock does not go back.
            let period = genuine.iter().position(|word| word == "$TILT-PERIOD").unwrap() + 1;
            assert_eq!(genuine[period], "$30000");
            genuine[period] = "$3000".to_owned();
        }
        assert_eq!(shape(&ours.ask(&words)), genuine, "{line}");
    }
    let both = |words: &[&str]| (ours.ask(words), theirs.ask(words));
    // Each learns in its own time what the other has seen already.
    settles(|| both(&["SENTINEL", "MASTER", NAME]), |reply| fields(reply, false));
    let first = |reply: &Reply, of_peer| fields(&reply.items()[0], of_peer);
    settles(|| both(&["SENTINEL", "REPLICAS", NAME]), |reply| first(reply, false));
    settles(|| both(&["SENTINEL", "SENTINELS", NAME]), |reply| first(reply, true));
    let (mine, genuine) = both(&["SENTINEL", "INFO-CACHE", NAME]);
    assert_eq!(mine.items()[0], genuine.items()[0]);
    assert_eq!(mine.items()[1].items().len(), genuine.items()[1].items().len());
    settles(|| both(&["INFO", "sentinel"]), Reply::text);
    let names = |reply: &Reply| {
        let lines = reply.text();
        let names = lines.lines().filter_map(|line| line.split_once(':'));
        names.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>()
    };
    let (mine, genuine) = both(&["INFO", "server"]);
    for name in ["redis_version", "redis_mode", "tcp_port", "run_id", "config_file"] {
        assert!(names(&mine).contains(name) && names(&genuine).contains(name), "{name}");
    }
}

/// Commands whose replies are equal to the letter.
fn test_commands(port: &str) -> String {
    support::lab::test_file("data/sentinel-commands.txt").replace("MASTERPORT", port)
}

/// Subscribes to everything and returns what is heard until `last`.
fn hear_until(watcher: &Watcher, last: &str, act: impl FnOnce()) -> Vec<(String, String)> {
    let mut client = watcher.client();
    client.ask(&["PSUBSCRIBE", "*"]);
    act();
    let mut heard = Vec::new();
    loop {
        let reply = client.reply().unwrap();
        let [kind, _, channel, text] = reply.items() else { panic!("{reply:?}") };
        assert_eq!(kind.text(), "pmessage");
        heard.push((channel.text(), text.text()));
        if channel.text() == last {
            return heard;
        }
    }
}

/// The words of a reply. A genuine Sentinel tells lists of commands in the order of a table that
/// differs from one process to the next.
fn words_of(line: &str, reply: &Reply) -> Vec<String> {
    let mut words = match reply {
        Reply::Array(items) => {
            let mut words = vec![format!("an array of {}", items.len())];
            words.extend(items.iter().flat_map(|item| words_of(line, item)));
            words
        }
        // The number of the client.
        Reply::Integer(_) if line.starts_with("HELLO") => vec!["a number".to_owned()],
        Reply::Bulk(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.split_whitespace().map(str::to_owned).collect()
        }
        other => vec![format!("{other:?}")],
    };
    words.sort();
    words
}

fn users_and_commands_are_told_in_the_same_words(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let all = pair(runtime);
    let mut clients = [all.watchers[0].client(), all.watchers[1].client()];
    let mut different = Vec::new();
    for line in support::lab::test_file("data/sentinel-users.txt").lines() {
        if line == "NEW CLIENT" {
            clients = [all.watchers[0].client(), all.watchers[1].client()];
            continue;
        }
        // An underscore stands for a space within a word.
        let words: Vec<String> = line.split_whitespace().map(|w| w.replace('_', " ")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let [ours, theirs] = clients.each_mut().map(|client| client.ask(&words));
        if words_of(line, &ours) != words_of(line, &theirs) {
            different.push(format!("{line}\nours:   {ours:?}\ntheirs: {theirs:?}\n"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn users_of_the_file_are_held_to_and_kept(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let servers = start_servers(1);
    // Peers are let in as somebody who may do no more than peers have to.
    let lines = format!(
        "sentinel down-after-milliseconds {NAME} 5000\nuser default off\nuser peer on >secret \
         +@connection +sentinel +publish &__sentinel__:hello\nuser boss on >word &* +@all\nsentinel \
         sentinel-user peer\nsentinel sentinel-pass secret"
    );
    let makes = [Make::Ours(runtime), Make::Genuine, Make::Ours(runtime)];
    let mut watchers = makes.map(|make| Watcher::start(make, &servers[0], 2, &lines));
    for watcher in &watchers {
        let mut client = watcher.client();
        assert_eq!(client.ask(&["PING"]).text(), "NOAUTH Authentication required.");
        assert_eq!(client.ask(&["AUTH", "boss", "word"]), Reply::ok());
        eventually("the peers let one another in", || {
            let reply = client.ask(&["SENTINEL", "CKQUORUM", NAME]).text();
            reply.starts_with("OK 3 usable").then_some(())
        });
    }
    let watcher = &mut watchers[0];
    let mut client = watcher.client();
    assert_eq!(client.ask(&["AUTH", "boss", "word"]), Reply::ok());
    assert_eq!(client.ask(&["ACL", "SETUSER", "late", "on", ">x", "+ping"]), Reply::ok());
    assert_eq!(client.ask(&["ACL", "DELUSER", "peer"]), Reply::Integer(1));
    assert_eq!(client.ask(&["SENTINEL", "FLUSHCONFIG"]), Reply::ok());
    let told = client.ask(&["ACL", "LIST"]);
    // A genuine Sentinel reads what we wrote, and so do we.
    for make in [Make::Genuine, Make::Ours(runtime)] {
        watcher.kill();
        watcher.make = make;
        watcher.run();
        let mut client = watcher.client();
        assert_eq!(client.ask(&["AUTH", "boss", "word"]), Reply::ok(), "{}", watcher.log());
        assert_eq!(client.ask(&["ACL", "LIST"]), told);
    }
    let mut client = watcher.client();
    assert_eq!(client.ask(&["AUTH", "late", "x"]), Reply::ok());
    let refused = client.ask(&["ACL", "LIST"]).text();
    assert_eq!(refused, "NOPERM this user has no permissions to run the 'acl|list' command");
}

fn servers_whose_commands_have_other_names_are_failed_over(runtime: Runtime) {
    need!("redis-server");
    let names = [("SLAVEOF", "moved"), ("CONFIG", "noted"), ("MULTI", "open"), ("CLIENT", "guest")];
    let mut options = vec!["--repl-diskless-sync-delay", "0"];
    for (from, to) in &names {
        options.extend(["--rename-command", from, to]);
    }
    let start = |more: &[&str]| {
        let all = [&options[..], more].concat();
        support::lab::Redis::start_with(std::net::Ipv4Addr::LOCALHOST.into(), &all)
    };
    let master = start(&[]);
    let port = master.place.port().to_string();
    let servers = vec![master, start(&["--replicaof", "127.0.0.1", &port])];
    let renamed = names.map(|(from, to)| format!("sentinel rename-command {NAME} {from} {to}\n"));
    let watcher = Watcher::start(Make::Ours(runtime), &servers[0], 1, &renamed.concat());
    let all = Quorum { servers, watchers: vec![watcher] };
    eventually("the replica is known and follows", || {
        let reply = all.watchers[0].ask(&["SENTINEL", "REPLICAS", NAME]);
        let fields = fields(reply.items().first()?, false);
        let is_up = ("master-link-status".to_owned(), "ok".to_owned());
        fields.contains(&is_up).then_some(())
    });
    assert_eq!(all.watchers[0].ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
    let (new, _) = all.wait_for_switch(all.servers[0].place.port());
    all.wait_until_settled(new);
}

fn masters_with_host_names_are_known_by_them(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let servers = start_servers(1);
    let port = servers[0].place.port();
    let lines = format!(
        "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel monitor named \
         localhost {port} 2"
    );
    let watchers = [Make::Ours(runtime), Make::Genuine]
        .map(|make| Watcher::start(make, &servers[0], 2, &lines));
    for watcher in &watchers {
        eventually("each knows the other by the named master, too", || {
            let reply = watcher.ask(&["SENTINEL", "CKQUORUM", "named"]).text();
            reply.starts_with("OK 2 usable").then_some(())
        });
        let place = watcher.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "named"]);
        let words: Vec<String> = place.items().iter().map(Reply::text).collect();
        assert_eq!(words, ["localhost", &port.to_string()]);
        assert!(watcher.file().contains(&format!("sentinel monitor named localhost {port} 2")));
    }
}

fn subscribers_hear_every_step_of_a_fail_over(runtime: Runtime) {
    need!("redis-server");
    let all = Quorum::start_with(&[Make::Ours(runtime)], 2, 1000, "");
    let watcher = &all.watchers[0];
    let heard = hear_until(watcher, "+failover-end", || {
        assert_eq!(watcher.ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
        let again = watcher.ask(&["SENTINEL", "FAILOVER", NAME]).text();
        assert_eq!(again, "INPROG Failover already in progress");
    });
    let channels: Vec<&str> = heard.iter().map(|(channel, _)| channel.as_str()).collect();
    let steps = [
        "+new-epoch",
        "+try-failover",
        "+vote-for-leader",
        "+elected-leader",
        "+failover-state-select-slave",
        "+selected-slave",
        "+failover-state-send-slaveof-noone",
        "+failover-state-wait-promotion",
        "+promoted-slave",
        "+failover-state-reconf-slaves",
        "+switch-master",
        "+slave-reconf-sent",
        "+slave-reconf-inprog",
        "+slave-reconf-done",
        "+failover-end",
    ];
    let mut rest = channels.iter();
    for step in steps {
        assert!(rest.any(|channel| *channel == step), "{step} in its place in {channels:?}");
    }
    let switch = heard.iter().find(|(channel, _)| channel == "+switch-master").unwrap();
    let from = all.servers[0].place.port();
    assert!(switch.1.starts_with(&format!("{NAME} 127.0.0.1 {from} 127.0.0.1 ")), "{switch:?}");
}

fn a_planned_fail_over_loses_no_acknowledged_write(runtime: Runtime) {
    need!("redis-server");
    let all = Quorum::start_with(&[Make::Ours(runtime)], 2, 2000, "");
    let watcher = &all.watchers[0];
    let old = all.servers[0].place.port();
    let mut client = all.servers[0].client();
    let mut acknowledged = Vec::new();
    for number in 0..100_000 {
        if number == 200 {
            assert_eq!(watcher.ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
        }
        let key = format!("k{number}");
        // The connection ends when the master becomes a replica.
        match client.try_ask(&["SET", &key, "v"]) {
            Ok(reply) if reply == Reply::ok() => acknowledged.push(key),
            _ => break,
        }
    }
    let (new, _) = all.wait_for_switch(old);
    all.wait_until_settled(new);
    let mut client = all.servers[new].client();
    let lost = acknowledged.iter().filter(|key| client.ask(&["GET", key]) != Reply::bulk("v"));
    assert_eq!(lost.count(), 0, "of {}; {}", acknowledged.len(), all.logs());
    assert!(acknowledged.len() >= 200);
}

fn settings_are_changed_written_and_refused_in_the_same_words(runtime: Runtime) {
    need!("redis-server");
    let all = Quorum::start_with(&[Make::Ours(runtime)], 1, 5000, "# kept\n");
    let watcher = &all.watchers[0];
    let set = ["SENTINEL", "SET", NAME, "down-after-milliseconds", "7000", "quorum", "3"];
    assert_eq!(watcher.ask(&set), Reply::ok());
    let file = watcher.file();
    assert!(file.contains("sentinel down-after-milliseconds mymaster 7000"), "{file}");
    assert!(file.contains("# kept"), "{file}");
    assert_eq!(watcher.field("quorum"), "3");
    let port = all.servers[1].place.port().to_string();
    assert_eq!(
        watcher.ask(&["SENTINEL", "MONITOR", "other", "127.0.0.1", &port, "1"]),
        Reply::ok()
    );
    assert!(watcher.file().contains(&format!("sentinel monitor other 127.0.0.1 {port} 1")));
    assert_eq!(watcher.ask(&["SENTINEL", "REMOVE", "other"]), Reply::ok());
    assert!(!watcher.file().contains("other"));
    assert_eq!(watcher.ask(&["SENTINEL", "RESET", "my*"]), Reply::Integer(1));
    // INFO is asked for at once, so the replica is back without waiting for its period.
    eventually("the replica is found again", || (watcher.field("num-slaves") == "1").then_some(()));
    let explained = watcher.ask(&["SENTINEL", "EXPLAIN", NAME]);
    let lines: Vec<String> = explained.items().iter().map(Reply::text).collect();
    assert!(lines.iter().any(|line| line == "no fail-over is under way"), "{lines:?}");
}

fn scripts_run_with_their_arguments_and_without_our_descriptors(runtime: Runtime) {
    need!("redis-server");
    let servers = start_servers(1);
    let scratch = support::Scratch::new();
    let script = scratch.path("script");
    let out = scratch.path("out");
    let text = format!(
        "#!/bin/sh\necho \"$*\" >> {0}\nls /proc/self/fd | wc -l >> {0}.descriptors\n",
        out.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let lines = format!(
        "sentinel down-after-milliseconds {NAME} 1000\n\
         sentinel notification-script {NAME} {0}\nsentinel client-reconfig-script {NAME} {0}",
        script.display()
    );
    let watcher = Watcher::start(Make::Ours(runtime), &servers[0], 1, &lines);
    let all = Quorum { servers, watchers: vec![watcher] };
    all.wait_until_complete();
    let watcher = &all.watchers[0];
    assert_eq!(watcher.ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
    let (old, new) = (all.servers[0].place.port(), all.servers[1].place.port());
    let reconfig = format!("{NAME} leader start 127.0.0.1 {old} 127.0.0.1 {new}");
    let notified = format!("+switch-master {NAME} 127.0.0.1 {old} 127.0.0.1 {new}");
    eventually("both scripts ran", || {
        let text = scratch.read("out");
        (text.contains(&reconfig) && text.contains(&notified)).then_some(())
    });
    // The same as when this process runs it, whose own descriptors the Sentinel has inherited.
    let counts = scratch.read("out.descriptors");
    assert!(Command::new(&script).stdout(Stdio::null()).status().unwrap().success());
    let all = scratch.read("out.descriptors");
    let own = all.lines().last().unwrap().trim();
    assert!(counts.lines().all(|line| line.trim() == own), "{counts} and {own}");
    let pending = eventually("no script is left", || {
        let reply = watcher.ask(&["SENTINEL", "PENDING-SCRIPTS"]);
        reply.items().is_empty().then_some(reply)
    });
    assert_eq!(pending, Reply::Array(Vec::new()));
}

fn passwords_are_asked_for_and_given(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let lines = "requirepass secret";
    let servers = start_servers(1);
    let more = format!("sentinel down-after-milliseconds {NAME} 5000\n{lines}");
    let watchers = [Make::Ours(runtime), Make::Genuine]
        .map(|make| Watcher::start(make, &servers[0], 2, &more));
    let refused = watchers[0].ask(&["SENTINEL", "MASTERS"]).text();
    assert_eq!(refused, "NOAUTH Authentication required.");
    let wrong = watchers[0].ask(&["AUTH", "wrong"]).text();
    assert_eq!(wrong, "WRONGPASS invalid username-password pair or user is disabled.");
    for watcher in &watchers {
        let mut client = watcher.client();
        assert_eq!(client.ask(&["AUTH", "default", "secret"]), Reply::ok());
        // Each lets the other in: both use the password that they ask for.
        eventually("the peers talk to each other", || {
            let reply = client.ask(&["SENTINEL", "CKQUORUM", NAME]).text();
            reply.starts_with("OK 2 usable").then_some(())
        });
    }
}

const REDIS_PY_SCRIPT: &str = r#"
import sys
from redis.sentinel import Sentinel
s = Sentinel([("127.0.0.1", int(port)) for port in sys.argv[2:]], socket_timeout=5)
assert s.discover_master("mymaster") == ("127.0.0.1", int(sys.argv[1])), s.discover_master("mymaster")
assert len(s.discover_slaves("mymaster")) == 1
m = s.master_for("mymaster", socket_timeout=5)
assert m.set("name", "laohu")
c = s.sentinels[0]
assert c.sentinel_master("mymaster")["num-slaves"] == 1
masters = c.sentinel_masters()
# A list of maps where the library speaks RESP3, a map by name where it speaks RESP2.
assert "mymaster" in (masters if isinstance(masters, dict) else [m["name"] for m in masters])
assert len(c.sentinel_slaves("mymaster")) == 1
# The library takes a genuine Sentinel's answer for a failure too; an error would raise.
c.sentinel_ckquorum("mymaster")
print("all good")
"#;

fn redis_py_and_redis_cli_find_the_master(runtime: Runtime) {
    need!("redis-server", "redis-cli", "python3");
    let all = Quorum::start_with(&[Make::Ours(runtime), Make::Ours(runtime)], 1, 5000, "");
    let port = all.servers[0].place.port().to_string();
    let places: Vec<String> = all.watchers.iter().map(|w| w.place.port().to_string()).collect();
    let Some(library) = python::package(python::REDIS_PY) else { return };
    let output = Command::new("python3")
        .args(["-c", REDIS_PY_SCRIPT, &port])
        .args(&places)
        .env("PYTHONPATH", &library)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("all good"), "{text}");
    let cli = |words: &[&str]| {
        let command = Command::new(program("redis-cli").unwrap())
            .args(["-p", &places[0]])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&command.stdout).into_owned()
    };
    let address = cli(&["SENTINEL", "get-master-addr-by-name", NAME]);
    assert_eq!(address.lines().collect::<Vec<_>>(), ["127.0.0.1", &port]);
    assert!(cli(&["-3", "SENTINEL", "MASTER", NAME]).contains("parallel-syncs"));
    assert!(cli(&["info", "server"]).contains("redis_mode:sentinel"));
}

fn redis_rs_finds_the_servers_and_follows_a_switch(runtime: Runtime) {
    need!("redis-server");
    let all = Quorum::start_with(&[Make::Ours(runtime), Make::Ours(runtime)], 1, 5000, "");
    let places: Vec<String> =
        all.watchers.iter().map(|watcher| format!("redis://{}/", watcher.place)).collect();
    let build = |kind| SentinelClient::build(places.clone(), NAME.to_owned(), None, kind).unwrap();
    let mut master = build(SentinelServerType::Master);
    let mut replica = build(SentinelServerType::Replica);
    let mut connection = master.get_connection().unwrap();
    Commands::set::<_, _, ()>(&mut connection, "name", "laohu").unwrap();
    let mut reader = replica.get_connection().unwrap();
    eventually("the replica has it", || {
        let value: Option<String> = Commands::get(&mut reader, "name").unwrap();
        (value.as_deref() == Some("laohu")).then_some(())
    });
    let old = all.watchers[0].master_port();
    assert_eq!(all.watchers[0].ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
    let (new, _) = all.wait_for_switch(old);
    all.wait_until_settled(new);
    // Asked anew, as such clients do when a connection ends or a server has become a replica.
    let mut connection = master.get_connection().unwrap();
    Commands::set::<_, _, ()>(&mut connection, "name", "baihu").unwrap();
    assert!(all.servers[new].keys().contains(&b"name"[..]));
    let mut reader = replica.get_connection().unwrap();
    eventually("the other one follows", || {
        let value: Option<String> = Commands::get(&mut reader, "name").unwrap();
        (value.as_deref() == Some("baihu")).then_some(())
    });
}

fn a_process_without_a_file_to_write_does_not_start(runtime: Runtime) {
    let scratch = support::Scratch::new();
    let run = |arguments: &[&str]| {
        let mut command = scratch.command("redis-sentinel", arguments);
        let output = command.env("RINGKEEPER_RUNTIME", runtime.name()).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("Sentinel needs config file on disk to save state. Exiting..."),
        "{text}"
    );
    let (code, text) = run(&["none.conf"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("can't open config file 'none.conf'"), "{text}");
    scratch.write("bad.conf", "port 1\nsentinel monitor m 127.0.0.1 1 0\n");
    let start = Instant::now();
    let (code, text) = run(&["bad.conf"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("*** FATAL CONFIG FILE ERROR"), "{text}");
    assert!(text.contains("at line 2\n>>> 'sentinel monitor m 127.0.0.1 1 0'"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn the_native_form_only_reads_its_file_and_remembers_beside_it(runtime: Runtime) {
    need!("redis-server");
    let servers = start_servers(1);
    let scratch = support::Scratch::new();
    let port = support::free_port();
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {} 1\n",
        servers[0].place.port()
    );
    scratch.write("s.conf", &text);
    let run = || {
        let arguments = ["run", "--sentinel", "s.conf", "--runtime", runtime.name()];
        let process = scratch.start("ringkeeper", &arguments);
        let place = support::resp::Place::Tcp(([127, 0, 0, 1], port).into());
        let client = eventually("the Sentinel answers", || {
            let mut client = support::resp::Client::connect(&place).ok()?;
            client.try_ask(&["PING"]).ok().map(|_| client)
        });
        (process, client)
    };
    let (process, mut client) = run();
    let id = client.ask(&["SENTINEL", "MYID"]);
    assert_eq!(client.ask(&["SENTINEL", "FLUSHCONFIG"]), Reply::ok());
    drop(process);
    eventually("the port is free", || std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    let (process, mut client) = run();
    assert_eq!(client.ask(&["SENTINEL", "MYID"]), id);
    assert_eq!(scratch.read("s.conf"), text);
    drop(process);
    let state = scratch.read("s.conf.state");
    assert!(state.contains(&format!("sentinel myid {}", id.text())), "{state}");
    scratch.write("s.conf.state", &state.replace("myid", "myidd"));
    let output = scratch.run("ringkeeper", &["run", "--sentinel", "s.conf"]);
    assert!(!output.status.success());
    assert!(support::stderr(&output).contains("is damaged"), "{}", support::stderr(&output));
}

fn a_peer_that_is_gone_for_good_is_forgotten_and_no_majority_with_it(runtime: Runtime) {
    need!("redis-server");
    let mut all = Quorum::start(&[Make::Ours(runtime); 3], 1000);
    let gone = all.watchers[2].ask(&["SENTINEL", "MYID"]).text();
    all.watchers[2].kill();
    let watcher = &all.watchers[0];
    assert_eq!(watcher.ask(&["SENTINEL", "FORGET", NAME, &gone]), Reply::ok());
    assert_eq!(watcher.field("num-other-sentinels"), "1");
    assert!(!watcher.file().contains(&gone), "{}", watcher.file());
    let other = all.watchers[1].ask(&["SENTINEL", "MYID"]).text();
    let refused = watcher.ask(&["SENTINEL", "FORGET", NAME, &other]).text();
    assert!(refused.contains("no majority"), "{refused}");
}

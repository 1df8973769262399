use proptest::prelude::*;

use super::*;
use crate::config::diagnostic::Severity;

const ID: &str = "30372ca36fc1eb1e23529c9ebcd9856bbdbeb7ff";
const PEER: &str = "119f05cb3c0cf27d131f3c039573c0c65ae1b6e6";
const OTHER: &str = "ed876f246f47abe4498cf4d7717a90ad6aedc381";

fn good(text: &str) -> Config {
    let parsed = parse("sentinel.conf", text);
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

/// Severity, code, line and column of each diagnostic.
fn verdict(text: &str) -> Vec<String> {
    let parsed = parse("sentinel.conf", text);
    let has_errors = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), has_errors);
    let line = |d: &Diagnostic| format!("{} {} {}:{}", d.severity.name(), d.code, d.line, d.column);
    parsed.diagnostics.iter().map(line).collect()
}

fn peer(host: &str, port: u16, id: &str) -> KnownSentinel {
    let address = Address::new(host, port).unwrap();
    KnownSentinel { address, run_id: RunId::parse(id.as_bytes()).unwrap() }
}

#[test]
fn every_statement_is_read() {
    let text = format!(
        "\
sentinel down-after-milliseconds m 1
port 26380
bind 127.0.0.1 -::1
requirepass \"a b\"
SENTINEL MYID {ID}
sentinel current-epoch 3
sentinel current-epoch 2
sentinel deny-scripts-reconfig no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip \"1.2.3.4\"
sentinel announce-port 5
sentinel sentinel-user u
sentinel sentinel-pass p
sentinel monitor m redis-a 6379 2
sentinel failover-timeout m 2
sentinel parallel-syncs m 3
sentinel notification-script m /n
sentinel client-reconfig-script m ./c
sentinel auth-pass m secret
sentinel auth-user m user
sentinel master-reboot-down-after-period m 4
sentinel config-epoch m 5
sentinel leader-epoch m 6
sentinel known-slave m ::1 6380
sentinel known-replica m 10.0.0.1 6381
sentinel known-sentinel m 10.0.0.2 26379 {PEER}
sentinel rename-command m CONFIG guessme
"
    );
    let config = good(&text);
    assert_eq!(config.server.port, Some(26380));
    assert_eq!(config.server.bind, ["127.0.0.1", "-::1"]);
    assert_eq!(config.server.requirepass.as_ref().map(Secret::expose), Some("a b"));
    assert_eq!(config.myid.unwrap().as_str(), ID);
    assert_eq!(config.current_epoch.get(), 3);
    assert!(!config.deny_scripts_reconfig && config.resolve_hostnames && config.announce_hostnames);
    assert_eq!(config.announce_ip.as_deref(), Some("1.2.3.4"));
    assert_eq!(config.announce_port, Some(5));
    assert_eq!(config.sentinel_user.as_deref(), Some("u"));
    assert_eq!(config.sentinel_pass.as_ref().map(Secret::expose), Some("p"));
    let [master] = config.masters.as_slice() else { panic!() };
    assert_eq!(master.monitor.address.to_string(), "redis-a:6379");
    assert_eq!(master.monitor.quorum.get(), 2);
    assert_eq!((master.down_after_ms, master.failover_timeout_ms), (1, 2));
    assert_eq!((master.parallel_syncs.get(), master.reboot_down_after_ms), (3, 4));
    assert_eq!((master.config_epoch.get(), master.leader_epoch.get()), (5, 6));
    assert_eq!(master.notification_script.as_deref(), Some("/n"));
    assert_eq!(master.client_reconfig_script.as_deref(), Some("./c"));
    assert_eq!(master.auth_pass.as_ref().map(Secret::expose), Some("secret"));
    assert_eq!(master.auth_user.as_deref(), Some("user"));
    let replicas: Vec<String> = master.known_replicas.iter().map(ToString::to_string).collect();
    assert_eq!(replicas, ["[::1]:6380", "10.0.0.1:6381"]);
    assert_eq!(master.known_sentinels, [peer("10.0.0.2", 26379, PEER)]);
    assert_eq!(master.renamed_commands[0].to, "guessme");
}

#[test]
fn every_mistake_has_one_error_with_its_place() {
    let m = "sentinel monitor m h 1 2\n";
    let cases: [(&str, &[&str]); 25] = [
        ("sentinel", &["error bad-arguments 2:1"]),
        ("sentinel monitr m h 1 2", &["error unknown-directive 2:10"]),
        ("sentinel monitor n h 1", &["error bad-arguments 2:1"]),
        ("sentinel monitor n h 1 0", &["error bad-number 2:24"]),
        ("sentinel monitor n h 65536 1", &["error bad-number 2:22"]),
        ("sentinel monitor n h,i 1 1", &["error bad-host 2:20"]),
        ("sentinel monitor a,b h 1 1", &["error bad-master-name 2:18"]),
        ("sentinel monitor m h 1 2", &["error duplicate-master 2:1"]),
        ("sentinel down-after-milliseconds m 0", &["error bad-number 2:36"]),
        ("sentinel down-after-milliseconds m 5s", &["error bad-number 2:36"]),
        ("sentinel down-after-milliseconds n 5", &["error unknown-master 2:1"]),
        ("sentinel parallel-syncs m 0", &["error bad-number 2:27"]),
        ("sentinel resolve-hostnames maybe", &["error bad-value 2:28"]),
        ("sentinel myid abc", &["error bad-id 2:15"]),
        ("sentinel current-epoch -1", &["error bad-number 2:24"]),
        ("sentinel known-replica m h 0", &["error bad-number 2:28"]),
        ("sentinel known-sentinel m h 1", &["warning known-sentinel-without-id 2:1"]),
        (
            "sentinel known-replica m h 1\nsentinel known-slave m h 1",
            &["error duplicate-replica 3:1"],
        ),
        ("sentinel announce-port 1 2", &["error bad-arguments 2:1"]),
        ("sentinel auth-pass m \"x", &["error unbalanced-quotes 2:22"]),
        ("prot 1", &["error unknown-directive 2:1"]),
        ("port x", &["error bad-number 2:6"]),
        ("maxmemory 1gb", &["warning server-directive-ignored 2:1"]),
        ("user", &["error bad-arguments 2:1"]),
        ("sentinel quorum m 2", &["error unknown-directive 2:10"]),
    ];
    for (line, expected) in cases {
        assert_eq!(verdict(&format!("{m}{line}\n")), expected, "{line}");
    }
}

#[test]
fn the_last_of_two_lines_wins_with_a_warning() {
    let text =
        "sentinel monitor m h 1 2\nsentinel parallel-syncs m 2\nsentinel parallel-syncs m 3\n";
    assert_eq!(verdict(text), ["warning repeated-directive 3:1"]);
    let config = good(text);
    assert_eq!(config.masters[0].parallel_syncs.get(), 3);
    let kept = "sentinel monitor m h 1 2\nsentinel parallel-syncs m 3\n";
    assert!(rewrite(text, &config).starts_with(kept));
}

#[test]
fn a_password_is_in_no_message() {
    let text =
        "sentinel auth-pass mm hunter2\nsentinel auth-pas m hunter2\nrequirepass hunter2 x\n";
    let parsed = parse("sentinel.conf", text);
    assert_eq!(parsed.diagnostics.len(), 3);
    let shown = crate::config::render::human("sentinel.conf", text, &parsed.diagnostics, false);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{:?}", good("requirepass hunter2")).contains("hunter2"));
}

#[test]
fn state_replaces_lines_where_they_stand() {
    let text = format!(
        "# head
sentinel myid {ID}
  sentinel  monitor m 10.0.0.1 6379 2 # not a comment in this grammar
"
    );
    assert_eq!(verdict(&text), ["error bad-arguments 3:3"]);
    let text = format!(
        "# head
port 26379

sentinel  monitor   m 10.0.0.1 6379 2
# about time
sentinel down-after-milliseconds m 30000
sentinel known-replica m 10.0.0.2 6379
# peers
sentinel known-sentinel m 10.0.0.8 26379 {PEER}
sentinel known-replica m 10.0.0.3 6379
save 10 1
sentinel current-epoch 0"
    );
    let mut config = good(&text);
    config.myid = RunId::parse(ID.as_bytes());
    config.current_epoch = Epoch::new(1).unwrap();
    let master = &mut config.masters[0];
    master.config_epoch = Epoch::new(1).unwrap();
    master.monitor.address = Address::new("10.0.0.2", 6379).unwrap();
    master.known_replicas =
        ["10.0.0.1", "10.0.0.3"].map(|host| Address::new(host, 6379).unwrap()).into();
    master.known_sentinels = vec![peer("10.0.0.9", 26379, PEER), peer("h", 1, OTHER)];
    let expected = format!(
        "# head
port 26379

sentinel monitor m 10.0.0.2 6379 2
# about time
sentinel down-after-milliseconds m 30000
sentinel known-replica m 10.0.0.1 6379
# peers
sentinel known-sentinel m 10.0.0.9 26379 {PEER}
sentinel known-replica m 10.0.0.3 6379
save 10 1
sentinel current-epoch 1

# Generated by CONFIG REWRITE
sentinel myid {ID}
sentinel config-epoch m 1
sentinel leader-epoch m 0
sentinel known-sentinel m h 1 {OTHER}
"
    );
    let written = rewrite(&text, &config);
    assert_eq!(written, expected);
    assert_eq!(good(&written), config);
    assert_eq!(rewrite(&written, &config), written);
}

#[test]
fn a_removed_master_takes_its_lines_along() {
    let text = "sentinel monitor a h 1 1\n# b\nsentinel monitor b h 2 1\nsentinel auth-pass b x\n";
    let mut config = good(text);
    config.masters.pop();
    assert!(rewrite(text, &config).starts_with("sentinel monitor a h 1 1\n# b\n\n# Generated"));
}

#[test]
fn line_ends_of_the_file_are_kept() {
    let text = "port 1\r\nsentinel monitor a h 1 1\r\n";
    let written = rewrite(text, &good(text));
    assert!(written.starts_with(text));
    assert_eq!(written.matches('\n').count(), written.matches("\r\n").count());
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", any::<String>().prop_filter("not empty", |text| !text.is_empty())]
}

prop_compose! {
    fn any_config()(
        down_after_ms in 1..100_000_u64,
        epoch in 0..100_u64,
        pass in proptest::option::of(word()),
        script in proptest::option::of(word()),
        replicas in proptest::collection::btree_set(1..50_u16, 0..5),
        renamed in proptest::collection::btree_map("[A-Z]{1,5}", word(), 0..3),
        deny in any::<bool>(),
    ) -> Config {
        let monitor = Monitor {
            address: Address::new("::1", 6379).unwrap(),
            quorum: NonZeroU32::MIN,
        };
        let mut master = Master::new(MasterName::new("m-1").unwrap(), monitor);
        master.down_after_ms = down_after_ms;
        master.config_epoch = Epoch::new(epoch).unwrap();
        master.auth_pass = pass.map(Secret);
        master.client_reconfig_script = script;
        master.known_replicas =
            replicas.into_iter().map(|port| Address::new("10.0.0.1", port).unwrap()).collect();
        master.known_sentinels = vec![peer("10.0.0.2", 26379, PEER)];
        master.renamed_commands =
            renamed.into_iter().map(|(from, to)| RenamedCommand { from, to }).collect();
        Config { masters: vec![master], deny_scripts_reconfig: deny, ..Config::default() }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(old in any_config(), new in any_config()) {
        let first = rewrite("# comment\n", &old);
        prop_assert_eq!(&good(&first), &old);
        let second = rewrite(&first, &new);
        let mut back = good(&second);
        // Lines of a list keep their places, so only its order may differ.
        back.masters[0].known_replicas.sort();
        back.masters[0].renamed_commands.sort_by(|a, b| a.from.cmp(&b.from));
        prop_assert_eq!(back, new);
        prop_assert!(second.starts_with("# comment\n"));
    }

    #[test]
    fn what_was_read_before_changes_nothing(configs in proptest::collection::vec(any_config(), 1..5)) {
        let mut rewriter = Rewriter::default();
        let mut text = "# comment\n".to_owned();
        for config in configs {
            let written = rewriter.rewrite(&text, &config);
            prop_assert_eq!(&written, &rewrite(&text, &config));
            text = written;
        }
    }

    #[test]
    fn no_text_panics(text in "(sentinel [a-z-]{0,24}( [\"\\\\a-z0-9:.,-]{0,12}){0,5}\n|\\PC{0,20}\n){0,8}") {
        let parsed = parse("x", &text);
        if let Some(config) = parsed.config {
            let written = rewrite(&text, &config);
            prop_assert!(parse("x", &written).config.is_some());
        }
    }
}

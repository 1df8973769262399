//! What we say about 77 odd and wrong configurations, against genuine `keepalived -t` 2.2.7.
//!
//! `vectors/keepalived/lint-2.2.7.json` holds each file, keepalived's exit code and its messages;
//! `lint-verdicts.txt` beside it what we say. `UPDATE_VECTORS=1` writes the latter again.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ringkeeper_core::config::diagnostic::Severity;
use ringkeeper_core::config::keepalived::{self, Parsed, Preempt, Probe};
use ringkeeper_core::config::render;
use ringkeeper_core::wire::vrrp::{AdvertInterval, Auth, Family, Password, Priority, Vrid};

/// Files that keepalived complains about and we do not, and why.
const QUIET: [(&str, &str); 2] = [
    ("interface does not exist", "the host knows interfaces"),
    ("script", "whether scripts exist and are safe is for the host to say"),
];

fn cases() -> Vec<(String, String, i64)> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keepalived/lint-2.2.7.json");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = |case: &serde_json::Value, key: &str| case[key].as_str().unwrap().to_owned();
    let one = |case: &serde_json::Value| {
        (text(case, "name"), text(case, "config"), case["exit"].as_i64().unwrap())
    };
    json.as_array().unwrap().iter().map(one).collect()
}

fn print(name: &str, exit: i64, parsed: &Parsed) -> String {
    let mut line = format!("{name} (keepalived: {exit}):");
    for diagnostic in &parsed.diagnostics {
        let (severity, code) = (diagnostic.severity.name(), diagnostic.code);
        write!(line, " {severity} {code} at {}:{}", diagnostic.line, diagnostic.column).unwrap();
    }
    line
}

#[test]
fn the_verdicts_are_the_recorded_ones() {
    let cases = cases();
    assert_eq!(cases.len(), 77);
    let mut printed = String::new();
    for (name, text, exit) in &cases {
        printed += &print(name, *exit, &keepalived::parse(text, "host"));
        printed.push('\n');
    }
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keepalived/lint-verdicts.txt");
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let recorded = std::fs::read_to_string(path).unwrap();
    for (printed, recorded) in printed.lines().zip(recorded.lines()) {
        assert_eq!(printed, recorded);
    }
    assert_eq!(printed.len(), recorded.len());
}

#[test]
fn what_keepalived_runs_is_no_error_and_what_it_complains_about_is_told() {
    for (name, text, exit) in cases() {
        let Parsed { config, diagnostics } = keepalived::parse(&text, "host");
        let has_errors =
            diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        assert_eq!(config.is_none(), has_errors, "{name}");
        if exit != 5 {
            assert!(!has_errors, "{name}: {diagnostics:?}");
        }
        let is_excused = QUIET.iter().any(|(part, _)| name.contains(part));
        if exit == 5 && !is_excused {
            assert!(!diagnostics.is_empty(), "{name}");
        }
    }
}

#[test]
fn the_whole_meaning_of_an_instance_is_read() {
    let text = "$P=150\n\
        vrrp_script chk { script \"/bin/check -q 'x y'\"\n interval 0.5\n weight -20\n fall 2\n}\n\
        vrrp_instance VI_1 {\n state BACKUP\n interface eth0\n virtual_router_id 51\n\
        priority $P\n advert_int 2\n nopreempt\n\
        authentication {\n auth_type PASS\n auth_pass s3cret\n }\n\
        virtual_ipaddress {\n 10.77.0.100/24 dev eth1 # first\n 10.77.0.101/32\n }\n\
        virtual_ipaddress_excluded { fd77::1/64 }\n\
        unicast_src_ip 10.77.0.1\n unicast_peer { 10.77.0.2\n 10.77.0.3\n }\n\
        track_script {\n chk weight 10\n }\n}\n\
        vrrp_instance VI_2 {\n interface eth0\n virtual_router_id 52\n advert_int 0.05\n\
        preempt_delay 1.5\n virtual_ipaddress { fe80::1/64 }\n}\n\
        vrrp_sync_group G { group { VI_1\n VI_2 } }\n";
    let Parsed { config, diagnostics } = keepalived::parse(text, "host");
    let codes: Vec<_> = diagnostics.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["weight-with-nopreempt", "weight-in-group"]);
    let config = config.unwrap();
    let Probe::Run(command) = &config.scripts[0].probe else { panic!("{config:?}") };
    assert_eq!(command.argv, ["/bin/check", "-q", "x y"]);
    assert_eq!(config.scripts[0].interval, Duration::from_millis(500));
    assert_eq!((config.scripts[0].weight, config.scripts[0].fall), (-20, 2));
    let [first, second] = &config.instances[..] else { panic!("{config:?}") };
    assert_eq!((first.vrid, first.priority), (Vrid::new(51).unwrap(), Priority(150)));
    assert_eq!(first.interval, AdvertInterval::seconds(2).unwrap());
    assert_eq!(first.auth, Auth::Password(Password::new(b"s3cret")));
    assert_eq!(first.preempt, Preempt::Never);
    assert_eq!(first.addresses.len(), 2);
    assert_eq!((first.addresses[0].prefix, first.addresses[1].prefix), (24, 32));
    assert_eq!(first.addresses[0].device.as_deref(), Some("eth1"));
    assert_eq!(first.excluded[0].address, "fd77::1".parse::<IpAddr>().unwrap());
    assert_eq!(first.peers.len(), 2);
    assert_eq!(first.tracks.scripts[0].weight, Some(10));
    assert_eq!(second.family, Family::V6);
    assert_eq!(second.interval, AdvertInterval::centiseconds(5).unwrap());
    assert_eq!(second.preempt, Preempt::After(Duration::from_millis(1500)));
    assert_eq!(config.groups[0].members, ["VI_1", "VI_2"]);
}

#[test]
fn a_password_is_not_shown_with_its_line() {
    let (_, text, _) = cases().into_iter().find(|(name, ..)| name == "auth_pass too long").unwrap();
    let parsed = keepalived::parse(&text, "host");
    assert_eq!(parsed.diagnostics.len(), 1);
    for shown in [
        render::human("keepalived.conf", &text, &parsed.diagnostics, false),
        render::json("keepalived.conf", &parsed.diagnostics),
        format!("{parsed:?}"),
    ] {
        assert!(!shown.contains("abcdefgh"), "{shown}");
    }
}

#[test]
fn keywords_of_common_files_take_effect() {
    let text = "global_defs {\n vrrp_garp_master_refresh 60\n enable_script_security\n\
        script_user nobody nogroup\n vrrp_rt_priority 50\n vrrp_notify_fifo /run/vrrp.fifo\n\
        vrrp_notify_fifo_script \"/bin/reader -v\"\n vrrp_startup_delay 1.5\n}\n\
        vrrp_script tcp { script \"</dev/tcp/127.0.0.1/22121\"\n weight 5 reverse\n init_fail\n}\n\
        vrrp_track_file f { file /run/maintenance\n weight -1 }\n\
        vrrp_track_process p { process redis-server\n quorum 2 }\n\
        vrrp_instance VI {\n interface eth0\n virtual_router_id 1\n garp_master_repeat 3\n\
        virtual_ipaddress { 10.0.0.1/24 brd 10.0.0.255 label eth0:1 no_track\n }\n\
        virtual_routes { default via 10.0.0.254 dev eth0 metric 9\n 10.1.0.0/16 via 10.0.0.2 }\n\
        track_interface { eth1 weight -10\n }\n track_file { f\n }\n track_process { p\n }\n\
        notify_master \"/bin/up a 'b c'\" root\n notify /bin/all\n use_vmac\n\
        vmac_xmit_base\n down_timer_adverts 2\n higher_prio_send_advert\n}\n";
    let Parsed { config, diagnostics } = keepalived::parse(text, "host");
    assert_eq!(diagnostics, []);
    let config = config.unwrap();
    assert_eq!(config.global.fifos[0].handler.as_ref().unwrap().argv, ["/bin/reader", "-v"]);
    assert_eq!(config.global.startup_delay, Duration::from_millis(1500));
    assert_eq!(config.global.scheduling.realtime, Some(50));
    let script = &config.scripts[0];
    assert_eq!(script.probe, Probe::Connect { host: "127.0.0.1".to_owned(), port: 22121 });
    assert!(script.is_reversed && script.starts_failed);
    let instance = &config.instances[0];
    let announcing = &instance.announcing;
    assert_eq!((announcing.repeat, announcing.refresh), (3, Duration::from_secs(60)));
    assert!(instance.addresses[0].is_untracked);
    assert_eq!(instance.addresses[0].label.as_deref(), Some("eth0:1"));
    assert_eq!((instance.routes.len(), instance.routes[0].metric), (2, Some(9)));
    assert_eq!(instance.tracks.interfaces[0].weight, Some(-10));
    assert_eq!(instance.notify.active.as_ref().unwrap().argv, ["/bin/up", "a", "b c"]);
    assert_eq!(instance.virtual_mac.as_ref().unwrap().name, "vrrp.1");
    assert_eq!((instance.down_adverts, instance.adverts_before_yielding), (2, true));
}

proptest::proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        picks in proptest::collection::vec((0_usize..77, 0_usize..30), 0..40),
    ) {
        let cases = cases();
        let line = |&(case, line): &(usize, usize)| {
            let text: &str = &cases[case].1;
            text.lines().nth(line % text.lines().count().max(1)).unwrap_or("").to_owned() + "\n"
        };
        let text: String = picks.iter().map(line).collect();
        let parsed = keepalived::parse(&text, "host");
        let has_errors =
            parsed.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        proptest::prop_assert_eq!(parsed.config.is_none(), has_errors);
    }
}

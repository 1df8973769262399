//! The replies of SENTINEL's subcommands against those of the transcripts, byte by byte.

use std::time::Duration;

use ringkeeper_core::sentinel::ask::{Answer, Ask};
use ringkeeper_core::sentinel::instance::{Address, Epoch, Flag, Flags, MasterName, Role, RunId};
use ringkeeper_core::sentinel::reply::{
    Common, InfoMaster, InfoSection, Master, NO_SUCH_MASTER, Protocol, Replica, Reported, Sentinel,
    Status, Usable, encode_address, encode_role,
};
use ringkeeper_core::wire::resp::encode;

use crate::recorded::{REDIS, VALKEY, reply};

/// Writes a reply as the transcripts do: a space for each line end.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().replace("\r\n", " ")
}

/// Returns the value of a field in the `at`th reply to a command.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let words: Vec<&str> = text.split(' ').collect();
    let at = words.iter().position(|word| *word == name).unwrap();
    words[at + 2]
}

fn ms(text: &str, name: &str) -> Duration {
    Duration::from_millis(field(text, name).parse().unwrap())
}

fn number<T: std::str::FromStr>(text: &str, name: &str) -> T {
    field(text, name).parse().unwrap_or_else(|_| panic!("{name}"))
}

fn address(text: &str) -> Address {
    Address::parse(field(text, "ip").as_bytes(), field(text, "port").as_bytes()).unwrap()
}

fn common<'a>(text: &'a str, address: &'a Address, flags: Flags) -> Common<'a> {
    Common {
        name: field(text, "name"),
        address,
        run_id: RunId::parse(field(text, "runid").as_bytes()),
        flags,
        pending_commands: number(text, "link-pending-commands"),
        link_refcount: number(text, "link-refcount"),
        last_ping_sent: ms(text, "last-ping-sent"),
        last_ok_ping_reply: ms(text, "last-ok-ping-reply"),
        last_ping_reply: ms(text, "last-ping-reply"),
        subjectively_down: None,
        objectively_down: None,
        down_after: ms(text, "down-after-milliseconds"),
    }
}

fn reported(text: &str, role: Role) -> Reported {
    assert_eq!(field(text, "role-reported"), role.word());
    let (info_refresh, role_time) = (ms(text, "info-refresh"), ms(text, "role-reported-time"));
    Reported { info_refresh, role, role_time }
}

fn master(text: &str, flags: Flags, failover_state: Option<&str>) -> String {
    let address = address(text);
    let master = Master {
        common: common(text, &address, flags),
        failover_state,
        reported: reported(text, Role::Master),
        config_epoch: Epoch::parse(field(text, "config-epoch").as_bytes()).unwrap(),
        replicas: number(text, "num-slaves"),
        other_sentinels: number(text, "num-other-sentinels"),
        quorum: number(text, "quorum"),
        failover_timeout: ms(text, "failover-timeout"),
        parallel_syncs: number(text, "parallel-syncs"),
        notification_script: None,
        client_reconfig_script: None,
    };
    let mut out = Vec::new();
    master.encode(Protocol::Resp2, &mut out);
    shown(&out)
}

#[test]
fn maps_of_masters_have_the_recorded_fields_in_the_recorded_order() {
    for transcript in [REDIS, VALKEY] {
        let text = reply(transcript, "SENTINEL MASTER mymaster", 0);
        assert_eq!(master(text, Flags::EMPTY, None), text);
        let text = reply(transcript, "SENTINEL MASTERS", 0);
        assert_eq!(format!("*1 {}", master(text, Flags::EMPTY, None)), text);
        let text = reply(transcript, "SENTINEL MASTER mymaster", 1);
        let flags = Flags::EMPTY.with(Flag::FailoverInProgress).with(Flag::ForceFailover);
        assert_eq!(master(text, flags, Some("wait_promotion")), text);
    }
}

#[test]
fn maps_of_replicas_have_the_recorded_fields_in_the_recorded_order() {
    for transcript in [REDIS, VALKEY] {
        let text = reply(transcript, "SENTINEL REPLICAS mymaster", 0);
        let (own, host, port) =
            (address(text), field(text, "master-host"), number(text, "master-port"));
        let of = Address::new(host, port).unwrap();
        let replica = Replica {
            common: common(text, &own, Flags::EMPTY),
            reported: reported(text, Role::Replica),
            link_down: ms(text, "master-link-down-time"),
            is_link_up: field(text, "master-link-status") == "ok",
            master: Some(&of),
            priority: number(text, "slave-priority"),
            offset: number(text, "slave-repl-offset"),
            is_announced: field(text, "replica-announced") == "1",
        };
        let mut out = b"*1\r\n".to_vec();
        replica.encode(Protocol::Resp2, &mut out);
        assert_eq!(shown(&out), text);
    }
}

#[test]
fn maps_of_sentinels_have_the_recorded_fields_in_the_recorded_order() {
    for transcript in [REDIS, VALKEY] {
        let text = reply(transcript, "SENTINEL SENTINELS mymaster", 0);
        let own = address(text);
        let sentinel = Sentinel {
            common: common(text, &own, Flags::EMPTY),
            last_hello: ms(text, "last-hello-message"),
            voted_leader: RunId::parse(field(text, "voted-leader").as_bytes()),
            voted_leader_epoch: Epoch::ZERO,
        };
        let mut out = b"*1\r\n".to_vec();
        sentinel.encode(Protocol::Resp2, &mut out);
        assert_eq!(shown(&out), text);
        out.clear();
        sentinel.encode(Protocol::Resp3, &mut out);
        assert!(out.starts_with(b"%14\r\n$4\r\nname\r\n"));
    }
}

#[test]
fn addresses_and_names_are_answered_as_recorded() {
    let name = MasterName::new("mymaster").unwrap();
    for (transcript, port) in [(REDIS, 28100), (VALKEY, 28200)] {
        let address = Address::new("127.0.0.1", port).unwrap();
        let mut out = Vec::new();
        encode_address(Some(&address), Protocol::Resp2, &mut out);
        assert_eq!(shown(&out), reply(transcript, "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster", 0));
        out.clear();
        encode_address(None, Protocol::Resp2, &mut out);
        assert_eq!(shown(&out), reply(transcript, "SENTINEL GET-MASTER-ADDR-BY-NAME nope", 0));
        out.clear();
        encode_role([&name].into_iter(), &mut out);
        assert_eq!(shown(&out), reply(transcript, "ROLE", 0));
        out.clear();
        encode::error(&mut out, NO_SUCH_MASTER);
        assert_eq!(shown(&out), reply(transcript, "SENTINEL MASTER nope", 0));
        let masters = [InfoMaster {
            name: &name,
            status: Status::Ok,
            address: &address,
            replicas: 1,
            sentinels: 2,
        }];
        let section = InfoSection {
            tilt_for: None,
            running_scripts: 0,
            queued_scripts: 0,
            masters: &masters,
        };
        out.clear();
        encode::bulk(&mut out, section.text().as_bytes());
        assert_eq!(shown(&out), reply(transcript, "INFO sentinel", 0));
    }
}

#[test]
fn a_missing_quorum_or_majority_is_told() {
    let told = |usable, voters, quorum| {
        let mut out = Vec::new();
        Usable { usable, voters, quorum }.encode(&mut out);
        shown(&out)
    };
    for transcript in [REDIS, VALKEY] {
        assert_eq!(told(2, 2, 2), reply(transcript, "SENTINEL CKQUORUM mymaster", 0));
    }
    // Two Sentinels cannot elect a leader when one host is gone.
    assert_eq!(
        told(1, 2, 1),
        "-NOQUORUM 1 usable Sentinels. Not enough available Sentinels to reach the majority and \
         authorize a failover "
    );
    assert_eq!(
        told(2, 3, 3),
        "-NOQUORUM 2 usable Sentinels. Not enough available Sentinels to reach the specified \
         quorum for this master "
    );
    assert!(told(1, 3, 2).contains("for this master. Not enough"));
}

#[test]
fn questions_about_a_master_are_judged_as_recorded() {
    for command in ["127.0.0.1 1 0 *", "127.0.0.1 x 0 *", "nohost 28100 0 *", "127.0.0.1 28100 0"] {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        match Ask::parse(&args).map_err(|error| error.reply()) {
            Ok(_) | Err(None) => Answer::UNKNOWN.encode(&mut out),
            Err(Some(text)) => encode::error(&mut out, text),
        }
        let command = format!("SENTINEL IS-MASTER-DOWN-BY-ADDR {command}");
        assert_eq!(shown(&out), reply(REDIS, &command, 0));
    }
}

//! Clients and the servers that they get.

use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{BalanceNews, CloseMode, CloseReason, Command, Event, Input};
use ringkeeper_core::limits;

use crate::lab::{Lab, Mood, server, text};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_refused_connection_goes_to_the_next_server_with_all_that_was_said() {
    let mut lab = Lab::new(&text("lb_algo rr", &["", "", ""]));
    lab.moods.insert(server(1), Mood::IsSilent);
    lab.moods.insert(server(2), Mood::Refuses);
    let client = lab.client();
    lab.give(Input::Received { conn: client, bytes: b"early" });
    lab.advance(limits::RELAY_CONNECT_TIMEOUT);
    let link = lab.link_to(server(3));
    assert_eq!(lab.wires[&link].written, b"early");
    assert!(lab.wires[&client].closed.is_none());
    // Nobody is left: the client is reset and the operator told.
    lab.moods.insert(server(1), Mood::Refuses);
    lab.moods.insert(server(3), Mood::Refuses);
    let client = lab.client();
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort));
    assert_eq!(lab.news().last(), Some(&&BalanceNews::ClientRefused { clients: 1 }));
    let figures: Vec<_> = lab.worker.balancer().figures().collect();
    assert_eq!(figures.iter().map(|one| one.connections).sum::<u32>(), 1, "{figures:?}");
}

#[test]
fn a_server_that_is_down_before_it_was_reached_is_let_go_of_once() {
    // Found by seed 1 of the simulation.
    let check = "TCP_CHECK {\n connect_timeout 1\n retry 0\n warmup 0\n }";
    let mut lab = Lab::new(&text("", &[check]));
    // Until just before the second check.
    lab.advance(60 * SECOND - SECOND / 2);
    lab.moods.insert(server(1), Mood::IsSilent);
    let client = lab.client();
    lab.advance(2 * SECOND);
    assert!(lab.news().contains(&&BalanceNews::ClientRefused { clients: 1 }), "{:?}", lab.news());
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort));
    assert_eq!(lab.worker.balancer().clients(), 0);
}

#[test]
fn bytes_pass_both_ways_and_halves_end_apart() {
    let mut lab = Lab::new(&text("", &[""]));
    let client = lab.client();
    let link = lab.link_to(server(1));
    lab.give(Input::Received { conn: client, bytes: b"ask" });
    lab.give(Input::Eof { conn: client });
    assert_eq!(lab.wires[&link].written, b"ask");
    assert!(lab.wires[&link].is_told && !lab.wires[&client].is_told);
    lab.stuck.insert(client);
    lab.give(Input::Received { conn: link, bytes: b"answer" });
    lab.give(Input::Eof { conn: link });
    assert_eq!(lab.wires[&client].closed, None, "the answer is not out yet");
    lab.unstick(client);
    assert_eq!(lab.wires[&client].written, b"answer");
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Flush));
    assert_eq!(lab.wires[&link].closed, Some(CloseMode::Flush));
    assert_eq!(lab.worker.balancer().clients(), 0);
}

#[test]
fn an_end_that_comes_before_the_server_is_reached_is_passed_on() {
    let mut lab = Lab::new(&text("", &[""]));
    lab.moods.insert(server(1), Mood::IsSilent);
    let client = lab.client();
    lab.give(Input::Received { conn: client, bytes: b"ask" });
    lab.give(Input::Eof { conn: client });
    let link = lab.link_to(server(1));
    lab.wires.get_mut(&link).unwrap().is_open = true;
    lab.give(Input::Connected { conn: link, local: None });
    assert_eq!(lab.wires[&link].written, b"ask");
    assert!(lab.wires[&link].is_told);
}

#[test]
fn a_side_that_does_not_read_stops_the_other_and_little_is_held() {
    for is_client_slow in [true, false] {
        let mut lab = Lab::new(&text("", &[""]));
        let client = lab.client();
        let link = lab.link_to(server(1));
        let (slow, fast) = if is_client_slow { (client, link) } else { (link, client) };
        lab.stuck.insert(slow);
        let part = [b'x'; 1000];
        let mut given = 0;
        while !lab.wires[&fast].is_paused {
            lab.give(Input::Received { conn: fast, bytes: &part });
            given += part.len();
            assert!(given < 2 * limits::RELAY_WAITING_BYTES, "it is never stopped");
        }
        let held = given - lab.wires[&slow].written.len();
        assert!((limits::RELAY_WAITING_BYTES..limits::RELAY_WAITING_BYTES + 2000).contains(&held));
        lab.unstick(slow);
        assert!(!lab.wires[&fast].is_paused);
        assert_eq!(lab.wires[&slow].written.len(), given);
    }
}

#[test]
fn what_breaks_on_one_side_breaks_on_the_other() {
    let mut lab = Lab::new(&text("", &[""]));
    let client = lab.client();
    let link = lab.link_to(server(1));
    lab.end(link, CloseReason::Reset);
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort));
    let client = lab.client();
    let link = lab.link_to(server(1));
    lab.end(client, CloseReason::Reset);
    assert_eq!(lab.wires[&link].closed, Some(CloseMode::Abort));
    assert_eq!(lab.worker.balancer().clients(), 0);
}

#[test]
fn a_half_closed_connection_may_not_be_silent_forever() {
    let mut lab = Lab::new(&text("", &[""]));
    let client = lab.client();
    let link = lab.link_to(server(1));
    lab.give(Input::Eof { conn: client });
    lab.advance(limits::RELAY_HALF_CLOSED_MAX - SECOND);
    lab.give(Input::Received { conn: link, bytes: b"still here" });
    lab.advance(limits::RELAY_HALF_CLOSED_MAX - SECOND);
    assert_eq!(lab.wires[&client].closed, None);
    lab.advance(SECOND * 2);
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort));
}

#[test]
fn clients_stay_with_their_server_while_it_lives() {
    let check = "TCP_CHECK {\n delay_loop 1\n retry 0\n warmup 0\n }";
    let mut lab = Lab::new(&text("lb_algo rr\n persistence_timeout 50", &[check, check]));
    let of = |lab: &mut Lab, last| {
        let client = lab.try_client_from([192, 168, 0, last]).unwrap();
        (client, lab.server_of(client))
    };
    let (first, at) = of(&mut lab, 1);
    for _ in 0..5 {
        assert_eq!(of(&mut lab, 1).1, at);
    }
    assert_ne!(of(&mut lab, 2).1, at, "others go by turn");
    let other = of(&mut lab, 2).1;
    lab.moods.insert(at, Mood::Refuses);
    lab.advance(SECOND * 3);
    assert_eq!(lab.wires[&first].closed, Some(CloseMode::Abort));
    assert_eq!(of(&mut lab, 1).1, other);
    // And stays there when the old one is back.
    lab.moods.insert(at, Mood::Takes);
    lab.advance(SECOND * 3);
    assert_eq!(of(&mut lab, 1).1, other);
}

#[test]
fn a_full_server_gets_clients_again_below_its_lower_bound() {
    let full = "uthreshold 2\n lthreshold 1";
    let mut lab = Lab::new(&text("lb_algo rr", &[full]));
    let (first, second) = (lab.client(), lab.client());
    assert_eq!(lab.try_client_from([192, 168, 0, 1]), None);
    lab.end(first, CloseReason::Reset);
    assert_eq!(lab.try_client_from([192, 168, 0, 1]), None, "one is not below one");
    lab.end(second, CloseReason::Reset);
    assert!(lab.try_client_from([192, 168, 0, 1]).is_some());
}

#[test]
fn the_server_hears_first_who_the_client_is() {
    let mut lab = Lab::new(&text("proxy_protocol v2", &["", ""]));
    lab.moods.insert(server(1), Mood::Refuses);
    let client = lab.client();
    lab.give(Input::Received { conn: client, bytes: b"PING" });
    let written = &lab.wires[&lab.link_to(server(2))].written;
    assert!(written.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\xa8\0\x01\x0a\0\0\x64"));
    assert_eq!((written.len(), &written[28..]), (32, &b"PING"[..]));
}

#[test]
fn a_reload_keeps_what_stays_and_ends_what_goes() {
    let mut lab = Lab::new(&text("lb_algo rr", &["", ""]));
    let clients: Vec<ConnId> = (0..4).map(|_| lab.client()).collect();
    let at: Vec<_> = clients.iter().map(|&client| lab.server_of(client)).collect();
    lab.reload(&text("lb_algo wlc\n quorum 1", &["weight 2"]));
    for (client, at) in clients.iter().zip(&at) {
        let expected = (*at == server(2)).then_some(CloseMode::Abort);
        assert_eq!(lab.wires[client].closed, expected);
    }
    let figures: Vec<_> = lab.worker.balancer().figures().collect();
    assert_eq!((figures.len(), figures[0].connections, figures[0].weight), (1, 2, 2));
    assert!(lab.events.iter().any(|event| matches!(event, Event::Reloaded(_))));
    lab.reload("");
    assert_eq!(lab.worker.balancer().clients(), 0);
    assert_eq!(lab.try_client_from([192, 168, 0, 1]), None);
}

#[test]
fn the_end_closes_clients_and_tells_programs_with_omega() {
    let told = "notify_down /bin/down";
    let mut lab = Lab::new(&text("omega\n quorum_up /bin/gained\n quorum_down /bin/lost", &[told]));
    assert_eq!(lab.exit(ringkeeper_core::io::Exit::Code(0)), "/bin/gained");
    let client = lab.client();
    lab.give(Input::Command(Command::Drain { limit: SECOND }));
    assert_eq!(lab.try_client_from([192, 168, 0, 1]), None);
    assert_eq!(lab.wires[&client].closed, None);
    lab.advance(SECOND);
    assert_eq!(lab.wires[&client].closed, Some(CloseMode::Abort));
    assert!(!lab.events.contains(&Event::Drained));
    let mut words = [
        lab.exit(ringkeeper_core::io::Exit::Code(0)),
        lab.exit(ringkeeper_core::io::Exit::Code(0)),
    ];
    words.sort();
    assert_eq!(words, ["/bin/down", "/bin/lost"]);
    assert!(lab.events.contains(&Event::Drained));
}

proptest::proptest! {
    #[test]
    fn however_bytes_are_cut_they_arrive_whole_and_in_order(
        cuts in proptest::collection::vec((1_usize..5000, proptest::bool::ANY), 1..100),
    ) {
        let mut lab = Lab::new(&text("", &[""]));
        let client = lab.client();
        let link = lab.link_to(server(1));
        let mut sent = Vec::new();
        for (number, (len, is_stuck)) in cuts.into_iter().enumerate() {
            if is_stuck {
                lab.stuck.insert(link);
            } else {
                lab.unstick(link);
            }
            let byte = u8::try_from(number % 251).unwrap();
            let part = vec![byte; len];
            lab.give(Input::Received { conn: client, bytes: &part });
            sent.extend_from_slice(&part);
        }
        lab.unstick(link);
        proptest::prop_assert!(lab.wires[&link].written == sent);
        proptest::prop_assert!(!lab.wires[&client].is_paused);
    }
}

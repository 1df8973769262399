//! One router, or one group, through situations with known outcomes.

use std::net::IpAddr;
use std::time::Duration;

use ringkeeper_core::limits;
use ringkeeper_core::time::Instant;
use ringkeeper_core::vrrp::accept::Arrival;
use ringkeeper_core::vrrp::announce::Plan;
use ringkeeper_core::vrrp::instance::{ChecksumRule, Peer, Reach};
use ringkeeper_core::vrrp::track::{Reading, TrackerId, Weight};
use ringkeeper_core::vrrp::{
    Action, Cause, Notification, Phase, Preempt, Settings, SettingsError, SyncGroup, VirtualRouter,
};
use ringkeeper_core::wire::ip::Path;
use ringkeeper_core::wire::vrrp::{
    self, AdvertInterval, Auth, Dialect, GROUP_V4, Password, Priority, Vrid,
};

use crate::pcap::frames;
use crate::router::{actions, active, at, hear, hear_interval, host, micros, run, settings};

const BECOMES_ACTIVE: [Action; 4] = [
    Action::SendAdvert(Priority(150)),
    Action::AddAddresses,
    Action::Announce { copies: 5 },
    Action::Notify(Notification::Active),
];

/// What a case changes in the usual settings.
type Change = fn(&mut Settings);

fn started(settings: Settings) -> VirtualRouter {
    let mut router = VirtualRouter::new(settings).unwrap();
    router.handle_start(at(0));
    router
}

fn adverts(done: &[(u64, Vec<Action>)]) -> usize {
    let is_advert = |action: &&Action| matches!(action, Action::SendAdvert(_));
    done.iter().flat_map(|(_, actions)| actions).filter(is_advert).count()
}

fn copies(actions: impl IntoIterator<Item = Action>) -> u32 {
    let copies = |action| {
        if let Action::Announce { copies } = action { u32::from(copies) } else { 0 }
    };
    actions.into_iter().map(copies).sum()
}

#[test]
fn alone_it_starts_as_a_backup_and_takes_over_after_the_master_down_time() {
    let mut router = started(settings(1, 150));
    let start = [Action::RemoveAddresses, Action::Notify(Notification::Backup)];
    assert_eq!(actions(&mut router), start);
    // 300 ms and 106 / 256 of 100 ms.
    assert_eq!(run(&mut router, at(400)), [(341_406, BECOMES_ACTIVE.to_vec())]);
    let later = run(&mut router, at(1341));
    assert_eq!(adverts(&later), 9);
    assert_eq!(later[0].0, 441_406);
}

#[test]
fn an_owner_is_active_at_once() {
    let mut router = started(settings(1, 255));
    assert_eq!(router.phase(), Phase::Active);
    assert_eq!(actions(&mut router)[0], Action::SendAdvert(Priority::OWNER));
}

#[test]
fn a_higher_priority_takes_over_when_the_lower_one_s_last_advert_has_aged() {
    let mut router = started(settings(1, 150));
    for advert in 0..3 {
        hear(&mut router, at(advert * 100), 2, 100).unwrap();
    }
    assert_eq!(router.poll_timeout(), Some(micros(341_406)));
}

#[test]
fn without_preemption_it_takes_over_only_from_silence_and_still_yields() {
    let mut rules = settings(1, 150);
    rules.rules.preempt = Preempt::Never;
    let mut router = started(rules);
    for advert in 0..50 {
        hear(&mut router, at(advert * 100), 2, 100).unwrap();
        run(&mut router, at(advert * 100 + 99));
    }
    assert_eq!(router.phase(), Phase::Backup);
    run(&mut router, at(5300));
    assert_eq!(router.phase(), Phase::Active);
    hear(&mut router, at(5310), 2, 200).unwrap();
    assert_eq!((router.phase(), router.last_cause()), (Phase::Backup, Some(Cause::Outranked)));
}

#[test]
fn a_preempt_delay_begins_with_the_first_lower_advert() {
    let mut rules = settings(1, 150);
    rules.rules.preempt = Preempt::After(Duration::from_secs(1));
    let mut router = started(rules);
    for advert in 1..20 {
        hear(&mut router, at(advert * 100), 2, 100).unwrap();
        run(&mut router, at(advert * 100 + 99));
        if router.phase() == Phase::Active {
            break;
        }
    }
    // The last advert that counted came at 1000 ms: the delay and what the timer had left.
    // keepalived needed 1266 ms from its start.
    hear(&mut router, at(9000), 2, 100).unwrap();
    assert_eq!(router.last_cause(), Some(Cause::ActiveDown));
    let mut rules = settings(1, 150);
    rules.rules.preempt = Preempt::After(Duration::from_secs(1));
    let mut router = started(rules);
    hear(&mut router, at(100), 2, 100).unwrap();
    hear(&mut router, at(1000), 2, 100).unwrap();
    assert_eq!(router.poll_timeout(), Some(micros(1_341_406)));
    hear(&mut router, at(1100), 2, 100).unwrap();
    assert_eq!(router.poll_timeout(), Some(micros(1_341_406)));
    // A router that outranks us ends the delay; it begins anew afterwards.
    hear(&mut router, at(1200), 2, 200).unwrap();
    hear(&mut router, at(1300), 2, 100).unwrap();
    assert_eq!(router.poll_timeout(), Some(micros(1_641_406)));
}

#[test]
fn a_goodbye_leaves_only_the_skew_to_wait() {
    let mut router = started(settings(1, 100));
    hear(&mut router, at(100), 2, 150).unwrap();
    hear(&mut router, at(150), 2, 0).unwrap();
    assert_eq!(router.poll_timeout(), Some(micros(150_000 + 60_937)));
}

#[test]
fn version_3_learns_the_interval_and_version_2_refuses_another() {
    let mut router = started(settings(1, 100));
    let second = AdvertInterval::centiseconds(100).unwrap();
    let accepted = hear_interval(&mut router, at(0), 2, 150, second).unwrap();
    assert!(accepted.interval_differs);
    assert_eq!(router.poll_timeout(), Some(micros(3_609_375)));
    // Its own again once it is Active.
    let done = run(&mut router, at(3900));
    assert_eq!(
        done.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [3_609_375, 3_709_375, 3_809_375]
    );

    let mut v2 = settings(1, 100);
    v2.rules.interval = AdvertInterval::seconds(1).unwrap();
    let mut router = started(v2);
    let two = AdvertInterval::seconds(2).unwrap();
    assert!(hear_interval(&mut router, at(500), 2, 150, two).is_err());
    assert_eq!(router.poll_timeout(), Some(micros(3_609_375)));
}

#[test]
fn an_active_router_yields_to_rank_and_answers_the_rest_once_a_turn() {
    let (mut router, now) = active(settings(3, 150));
    let soon = now + Duration::from_millis(10);
    for sender in [2, 1, 2, 1] {
        hear(&mut router, soon, sender, 150).unwrap();
        hear(&mut router, soon, sender, 0).unwrap();
    }
    assert_eq!(actions(&mut router), []);
    router.handle_timeout(soon);
    let heard = Action::Notify(Notification::LowerPriorityHeard);
    assert_eq!(actions(&mut router), [Action::SendAdvert(Priority(150)), heard]);
    // Neighbours are told again soon after a claim.
    assert_eq!(router.poll_timeout(), Some(soon + Duration::from_millis(2)));
    hear(&mut router, soon, 4, 150).unwrap();
    let yields = [Action::RemoveAddresses, Action::Notify(Notification::Backup)];
    assert_eq!(actions(&mut router), yields);
}

#[test]
fn a_last_advert_can_tell_the_one_who_outranks_us() {
    let mut rules = settings(3, 150);
    rules.rules.adverts_before_yielding = true;
    let (mut router, now) = active(rules);
    hear(&mut router, now, 4, 200).unwrap();
    assert_eq!(actions(&mut router)[0], Action::SendAdvert(Priority(150)));
}

#[test]
fn a_router_may_keep_silent_to_lower_priorities_and_still_announces() {
    let mut rules = settings(3, 150);
    rules.rules.answers_lower = false;
    let (mut router, now) = active(rules);
    let later = now + Duration::from_millis(50);
    hear(&mut router, later, 2, 100).unwrap();
    router.handle_timeout(later);
    assert_eq!(actions(&mut router), [Action::Notify(Notification::LowerPriorityHeard)]);
    let announced: Vec<_> = run(&mut router, now + Duration::from_secs(1)).into_iter().collect();
    assert_eq!(copies(announced.into_iter().flat_map(|(_, actions)| actions)), 3 + 5);
}

#[test]
fn a_one_way_loss_of_two_seconds_costs_ten_announcements() {
    let (mut router, now) = active(settings(1, 150));
    let begin = now + Duration::from_secs(20);
    run(&mut router, begin);
    let mut sent = 0;
    let mut time = begin;
    for _ in 0..18 {
        time += Duration::from_millis(110);
        sent += copies(run(&mut router, time).into_iter().flat_map(|(_, actions)| actions));
        hear(&mut router, time, 2, 100).unwrap();
        router.handle_timeout(time);
        sent += copies(actions(&mut router));
    }
    let rest = run(&mut router, time + Duration::from_secs(20));
    let last = rest.iter().rfind(|(_, actions)| copies(actions.iter().copied()) > 0).unwrap().0;
    assert!(last * 1000 <= (time + Duration::from_millis(250)).as_nanos());
    sent += copies(rest.into_iter().flat_map(|(_, actions)| actions));
    // keepalived sent 185.
    assert_eq!(sent, 10);
}

#[test]
fn a_paused_active_router_reads_first_and_speaks_once() {
    for reads_first in [true, false] {
        let (mut router, now) = active(settings(1, 150));
        run(&mut router, now + Duration::from_secs(10));
        let resumed = now + Duration::from_secs(12);
        if !reads_first {
            router.handle_timeout(resumed);
            assert_eq!(actions(&mut router), []);
        }
        for _ in 0..17 {
            hear(&mut router, resumed, 2, 100).unwrap();
        }
        router.handle_timeout(resumed);
        let spoken = run(&mut router, resumed + limits::VRRP_LATE_READ);
        let expected = [
            Action::SendAdvert(Priority(150)),
            Action::Announce { copies: 5 },
            Action::Notify(Notification::LowerPriorityHeard),
        ];
        assert_eq!(
            spoken.into_iter().flat_map(|(_, actions)| actions).collect::<Vec<_>>(),
            expected
        );
    }
}

#[test]
fn a_paused_active_router_that_was_replaced_by_a_higher_one_says_nothing() {
    let (mut router, now) = active(settings(1, 150));
    let resumed = now + Duration::from_secs(2);
    router.handle_timeout(resumed);
    hear(&mut router, resumed, 2, 100).unwrap();
    hear(&mut router, resumed, 3, 200).unwrap();
    router.handle_timeout(resumed);
    let expected = [Action::RemoveAddresses, Action::Notify(Notification::Backup)];
    assert_eq!(actions(&mut router), expected);
}

#[test]
fn a_paused_backup_does_not_take_over_from_a_living_router() {
    let mut router = started(settings(1, 100));
    hear(&mut router, at(0), 2, 150).unwrap();
    actions(&mut router);
    router.handle_timeout(at(5000));
    assert_eq!(router.phase(), Phase::Backup);
    hear(&mut router, at(5000), 2, 150).unwrap();
    assert_eq!(router.poll_timeout(), Some(micros(5_360_937)));
    assert_eq!(run(&mut router, at(5300)), []);
}

#[test]
fn a_fault_says_goodbye_twice_and_its_end_waits_a_master_down_time() {
    let mut rules = settings(1, 150);
    rules.trackers = vec![Weight::default()];
    let mut router = started(rules);
    assert_eq!((router.phase(), router.poll_timeout()), (Phase::Init, None));
    router.handle_reading(at(0), TrackerId(0), Reading::Up);
    run(&mut router, at(500));
    actions(&mut router);
    router.handle_reading(at(510), TrackerId(0), Reading::Down);
    let goodbye = Action::SendAdvert(Priority::LEAVING);
    let fault = Action::Notify(Notification::Fault);
    assert_eq!(actions(&mut router), [goodbye, goodbye, Action::RemoveAddresses, fault]);
    hear(&mut router, at(600), 2, 100).unwrap();
    assert_eq!((router.phase(), router.poll_timeout()), (Phase::Fault, None));
    router.handle_reading(at(1000), TrackerId(0), Reading::Up);
    assert_eq!(router.poll_timeout(), Some(micros(1_341_406)));
}

#[test]
fn the_end_of_a_fault_under_unicast_announces_our_own_address() {
    let mut rules = settings(1, 150);
    rules.rules.announces_source = true;
    let mut router = started(rules);
    router.handle_link(at(10), false);
    actions(&mut router);
    router.handle_link(at(20), true);
    let expected = [Action::AnnounceSource, Action::Notify(Notification::Backup)];
    assert_eq!(actions(&mut router), expected);
}

#[test]
fn a_weight_moves_the_timer_of_a_backup_by_the_difference_of_the_skews() {
    let mut rules = settings(1, 100);
    rules.trackers = vec![Weight::new(-50).unwrap()];
    let mut router = started(rules);
    assert_eq!(router.poll_timeout(), Some(micros(360_937)));
    router.handle_reading(at(10), TrackerId(0), Reading::Down);
    assert_eq!(router.priority(), Priority(50));
    assert_eq!(router.poll_timeout(), Some(micros(380_468)));
    router.handle_reading(at(20), TrackerId(0), Reading::Up);
    assert_eq!(router.poll_timeout(), Some(micros(360_937)));
}

#[test]
fn a_removed_address_is_put_back_and_given_up_when_somebody_insists() {
    let (mut router, now) = active(settings(1, 150));
    for _ in 0..limits::VRRP_REINSTATEMENTS_MAX {
        router.handle_address_lost(now);
        let again = [Action::AddAddresses, Action::Announce { copies: 1 }];
        assert_eq!(actions(&mut router), again);
    }
    router.handle_address_lost(now);
    assert_eq!(router.last_cause(), Some(Cause::AddressLost));
    assert_eq!(actions(&mut router)[0], Action::SendAdvert(Priority::LEAVING));
}

#[test]
fn a_demoted_router_stays_a_backup_for_the_asked_time() {
    let (mut router, now) = active(settings(1, 150));
    router.handle_demote(now, Duration::from_secs(30));
    assert_eq!(actions(&mut router)[0], Action::SendAdvert(Priority::LEAVING));
    hear(&mut router, now + Duration::from_millis(70), 2, 100).unwrap();
    assert_eq!(router.poll_timeout(), Some(now + Duration::from_secs(30)));
}

#[test]
fn a_stop_says_goodbye_once_and_a_stopped_router_is_deaf() {
    let (mut router, now) = active(settings(1, 150));
    router.handle_stop(now);
    let goodbye = Action::SendAdvert(Priority::LEAVING);
    let stop = Action::Notify(Notification::Stop);
    assert_eq!(actions(&mut router), [goodbye, Action::RemoveAddresses, stop]);
    hear(&mut router, now, 2, 100).unwrap();
    router.handle_link(now, false);
    assert_eq!((router.phase(), router.poll_timeout()), (Phase::Init, None));
    assert_eq!(actions(&mut router), []);
}

#[test]
fn the_refresh_of_our_own_plan_goes_on_while_it_is_active() {
    let mut rules = settings(1, 150);
    rules.rules.announce = Plan::spaced();
    let (mut router, now) = active(rules);
    let done = run(&mut router, now + Duration::from_secs(130));
    assert_eq!(copies(done.into_iter().flat_map(|(_, actions)| actions)), 5);
}

fn group(first: u8, second: u8) -> (SyncGroup, Vec<VirtualRouter>) {
    let mut routers = Vec::new();
    for priority in [first, second] {
        let mut rules = settings(1, priority);
        rules.rules.is_grouped = true;
        routers.push(started(rules));
    }
    (SyncGroup::new(vec![0, 1]), routers)
}

fn run_group(group: &mut SyncGroup, routers: &mut [VirtualRouter], until: Instant) {
    while let Some(due) =
        routers.iter().filter_map(VirtualRouter::poll_timeout).min().filter(|&due| due <= until)
    {
        for router in routers.iter_mut() {
            router.handle_timeout(due);
        }
        group.settle(due, routers);
    }
}

#[test]
fn a_group_is_active_when_all_of_it_would_be() {
    let (mut group, mut routers) = group(150, 100);
    for beat in 0..20 {
        hear(&mut routers[1], at(beat * 100), 2, 200).unwrap();
        run_group(&mut group, &mut routers, at(beat * 100 + 99));
        assert!(routers.iter().all(|router| router.phase() == Phase::Backup));
    }
    run_group(&mut group, &mut routers, at(2500));
    assert!(routers.iter().all(|router| router.phase() == Phase::Active));
    assert!(group.is_active());
    // One is outranked: both leave.
    hear(&mut routers[0], at(2510), 2, 200).unwrap();
    group.settle(at(2510), &mut routers);
    assert_eq!(routers[1].last_cause(), Some(Cause::GroupYielded));
    assert!(routers.iter().all(|router| router.phase() == Phase::Backup));
}

#[test]
fn a_fault_of_one_is_a_fault_of_its_group_and_an_owner_waits_for_the_others() {
    let (mut group, mut routers) = group(255, 100);
    run_group(&mut group, &mut routers, at(300));
    assert_eq!(routers[0].phase(), Phase::Backup);
    run_group(&mut group, &mut routers, at(600));
    assert!(group.is_active());
    routers[1].handle_link(at(600), false);
    group.settle(at(600), &mut routers);
    assert!(routers.iter().all(|router| router.phase() == Phase::Fault));
    routers[1].handle_link(at(700), true);
    group.settle(at(700), &mut routers);
    assert!(routers.iter().all(|router| router.phase() == Phase::Backup));
    run_group(&mut group, &mut routers, at(1300));
    assert!(group.is_active());
}

#[test]
fn what_we_send_is_what_keepalived_sent() {
    let captures: [(&str, Change); 6] = [
        ("v2-none-2vips.pcap", |rules| {
            rules.rules.interval = AdvertInterval::seconds(1).unwrap();
            rules.addresses.push(host(101));
        }),
        ("v2-unicast.pcap", |rules| {
            rules.rules.interval = AdvertInterval::seconds(1).unwrap();
            let peers = vec![Peer { address: host(2), ttl: 0..=255 }];
            rules.reach = Reach::Unicast { peers, ttl: 255, checks_source: false };
        }),
        ("v3-ipv4-0.01.pcap", |rules| {
            rules.rules.interval = AdvertInterval::centiseconds(1).unwrap();
        }),
        ("v3-ipv4-0.5.pcap", |rules| {
            rules.rules.interval = AdvertInterval::centiseconds(50).unwrap();
        }),
        ("v2-pass.pcap", |rules| {
            rules.rules.interval = AdvertInterval::seconds(1).unwrap();
            rules.auth = Auth::Password(Password::new(b"s3cret"));
        }),
        ("v3-unicast.pcap", |rules| {
            rules.rules.interval = AdvertInterval::centiseconds(50).unwrap();
            let peers = vec![Peer { address: host(2), ttl: 0..=255 }];
            rules.reach = Reach::Unicast { peers, ttl: 255, checks_source: true };
        }),
    ];
    for (name, change) in captures {
        let mut rules = settings(1, 150);
        change(&mut rules);
        let mut router = VirtualRouter::new(rules).unwrap();
        let to = router.settings().destinations()[0];
        let own = |frame: &&Vec<u8>| frame[12..14] == [8, 0] && frame[23] == 112 && frame[29] == 1;
        let mut compared = 0;
        for frame in frames(name).iter().filter(own).take(6) {
            let mut packet = Vec::new();
            // Goodbyes are in the captures, too.
            router.encode_advert(Priority(frame[36]), to, &mut packet);
            assert_eq!(packet, frame[14..], "{name}");
            compared += 1;
        }
        assert!(compared >= 4, "{name}: {compared}");
    }
}

#[test]
fn what_we_send_over_ipv6_is_what_keepalived_sent() {
    let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
    let interval = AdvertInterval::centiseconds(50).unwrap();
    let addresses = [v6("fe80::77:100"), v6("fd77::100")];
    let vrid = Vrid::new(51).unwrap();
    let rules = Settings::new(vrid, interval, v6("fe80::77:ff:fe00:1"), &addresses);
    let mut router = VirtualRouter::new(rules).unwrap();
    let to = router.settings().destinations()[0];
    let mut compared = 0;
    for frame in frames("v3-ipv6-0.5.pcap") {
        // Of the first of the two routers of the capture.
        if frame[20] == 112 && frame[37] == 1 {
            let mut message = Vec::new();
            router.encode_advert(Priority(frame[56]), to, &mut message);
            assert_eq!(message, frame[54..]);
            compared += 1;
        }
    }
    assert!(compared >= 6, "{compared}");
}

#[test]
fn the_checksum_is_sent_as_the_other_router_sends_it() {
    let mut sender = VirtualRouter::new({
        let mut plain = settings(2, 100);
        plain.checksum = ChecksumRule::Fixed(Dialect::Plain);
        plain
    })
    .unwrap();
    let mut router = started(settings(1, 150));
    let dialect_of = |router: &mut VirtualRouter| {
        let mut packet = Vec::new();
        router.encode_advert(Priority(1), IpAddr::V4(GROUP_V4), &mut packet);
        vrrp::parse_ipv4(&packet).unwrap().1.dialect
    };
    assert_eq!(dialect_of(&mut router), Some(Dialect::PseudoHeader));
    let mut packet = Vec::new();
    sender.encode_advert(Priority(100), IpAddr::V4(GROUP_V4), &mut packet);
    let (header, received) = vrrp::parse_ipv4(&packet).unwrap();
    let path = Path::V4 { source: header.source, destination: header.destination };
    router.handle_advert(at(1), &Arrival { received, path, ttl: header.ttl }).unwrap();
    assert_eq!(dialect_of(&mut router), Some(Dialect::Plain));
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let cases: [(Change, SettingsError); 5] = [
        (|rules| rules.rules.priority = Priority(0), SettingsError::PriorityZero),
        (|rules| rules.auth = Auth::Password(Password::new(b"x")), SettingsError::VersionAuth),
        (
            |rules| rules.addresses.push(IpAddr::from([0_u16; 8])),
            SettingsError::Family(IpAddr::from([0_u16; 8])),
        ),
        (|rules| rules.addresses = vec![host(9); 256], SettingsError::Addresses(256)),
        (
            |rules| {
                let peer = Peer { address: host(2), ttl: 0..=255 };
                let peers = vec![peer; limits::VRRP_PEERS_MAX + 1];
                rules.reach = Reach::Unicast { peers, ttl: 255, checks_source: true };
            },
            SettingsError::Peers(limits::VRRP_PEERS_MAX + 1),
        ),
    ];
    for (change, error) in cases {
        let mut rules = settings(1, 150);
        change(&mut rules);
        assert_eq!(VirtualRouter::new(rules).err(), Some(error));
        assert!(!error.to_string().is_empty());
    }
}

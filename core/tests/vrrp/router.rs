//! A virtual router on a link of hosts 10.77.0.x, as the vectors have it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ringkeeper_core::time::Instant;
use ringkeeper_core::vrrp::accept::Arrival;
use ringkeeper_core::vrrp::{Accepted, Action, Refusal, Settings, VirtualRouter};
use ringkeeper_core::wire::ip::Path;
use ringkeeper_core::wire::vrrp::{
    Addresses, Advert, AdvertInterval, Auth, Family, GROUP_V4, Priority, Received, Vrid,
};

pub(crate) const VIRTUAL: [u8; 4] = [10, 77, 0, 100];

pub(crate) fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, number))
}

/// A moment in milliseconds.
pub(crate) fn at(millis: u64) -> Instant {
    Instant::START + Duration::from_millis(millis)
}

pub(crate) fn micros(micros: u64) -> Instant {
    Instant::START + Duration::from_micros(micros)
}

/// Version 3, a tenth of a second, at 10.77.0.`number`.
pub(crate) fn settings(number: u8, priority: u8) -> Settings {
    let interval = AdvertInterval::centiseconds(10).unwrap();
    let addresses = [IpAddr::from(VIRTUAL)];
    let mut settings = Settings::new(Vrid::new(51).unwrap(), interval, host(number), &addresses);
    settings.rules.priority = Priority(priority);
    settings
}

pub(crate) fn hear(
    router: &mut VirtualRouter,
    now: Instant,
    number: u8,
    priority: u8,
) -> Result<Accepted, Refusal> {
    let interval = router.settings().rules.interval;
    hear_interval(router, now, number, priority, interval)
}

pub(crate) fn hear_interval(
    router: &mut VirtualRouter,
    now: Instant,
    number: u8,
    priority: u8,
    interval: AdvertInterval,
) -> Result<Accepted, Refusal> {
    let advert = Advert {
        vrid: Vrid::new(51).unwrap(),
        priority: Priority(priority),
        interval,
        auth: Auth::None,
        addresses: Addresses::new(Family::V4, &VIRTUAL).unwrap(),
    };
    let path = Path::new(host(number), IpAddr::V4(GROUP_V4)).unwrap();
    let received = Received { advert, dialect: None };
    router.handle_advert(now, &Arrival { received, path, ttl: 255 })
}

/// Takes out all actions.
pub(crate) fn actions(router: &mut VirtualRouter) -> Vec<Action> {
    std::iter::from_fn(|| router.poll_action()).collect()
}

/// Runs all timers up to a moment; returns the moments, in microseconds, and what was done.
pub(crate) fn run(router: &mut VirtualRouter, until: Instant) -> Vec<(u64, Vec<Action>)> {
    let mut done = Vec::new();
    let mut now = Instant::START;
    while let Some(due) = router.poll_timeout().filter(|&due| due <= until) {
        // Something may be due since long; the clock never goes back.
        let due = due.max(now);
        now = due;
        assert!(done.len() < 100_000, "timers that never end");
        router.handle_timeout(due);
        let actions = actions(router);
        if !actions.is_empty() {
            done.push((due.as_nanos() / 1000, actions));
        }
    }
    done
}

/// Makes a router Active at the moment zero of an owner, or after the first master-down time;
/// returns when.
pub(crate) fn active(settings: Settings) -> (VirtualRouter, Instant) {
    let mut router = VirtualRouter::new(settings).unwrap();
    router.handle_start(at(0));
    let due = router.poll_timeout().unwrap();
    router.handle_timeout(due);
    actions(&mut router);
    (router, due)
}

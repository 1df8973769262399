//! Lines about virtual routers.

use std::io;

use ringkeeper_core::io::{Event, RouterNews};

/// Logs an event of the worker that has the virtual routers; others are not for here.
pub(crate) fn log(event: &Event) {
    match event {
        Event::Router { router, news } => log_news(router, news),
        Event::Check { check, is_up: true, detail } => {
            tracing::info!(check, "check succeeds: {detail}");
        }
        Event::Check { check, is_up: false, detail } => {
            tracing::warn!(check, "check fails: {detail}");
        }
        Event::ChannelFailed { purpose, errno } => {
            tracing::error!("{purpose}: {}; tried again", why(*errno));
        }
        Event::ServerDown { .. }
        | Event::ServerUp { .. }
        | Event::ServerSilent { .. }
        | Event::Ejected { .. }
        | Event::Returned { .. }
        | Event::GreetingRefused { .. }
        | Event::ServerProtocolError { .. }
        | Event::Switched { .. }
        | Event::HoldBegan { .. }
        | Event::HoldEnded { .. }
        | Event::ClientRefused { .. }
        | Event::ClientOverLimit { .. }
        | Event::Reloaded(_)
        | Event::TlsFailed { .. }
        | Event::Balance { .. }
        | Event::Exit { .. }
        | Event::Sentinel { .. }
        | Event::Drained => {}
    }
}

fn why(errno: i32) -> String {
    if errno == 0 {
        return "the other end is gone".to_owned();
    }
    super::super::reason(&io::Error::from_raw_os_error(errno))
}

fn log_news(router: &str, news: &RouterNews) {
    match news {
        RouterNews::State { state, cause, priority } => {
            tracing::info!(router, priority, "enters state {state}: {cause}");
        }
        RouterNews::Priority(priority) => {
            tracing::info!(router, priority, "effective priority changed");
        }
        RouterNews::LowerPriority => {
            tracing::warn!(router, "a router of lower priority was Active too; it was answered");
        }
        RouterNews::Refused { kind, message } => {
            tracing::warn!(
                router,
                kind,
                "an advert does not count: {message}; more of this kind are counted only"
            );
        }
        RouterNews::AddressesDiffer { from } => {
            tracing::warn!(router, %from, "the other router advertises other addresses");
        }
        RouterNews::AddressLost(address) => {
            tracing::warn!(router, %address, "somebody removed a virtual address; it is put back");
        }
        RouterNews::ChangeFailed { what, errno } => {
            tracing::error!(router, "{what}: {}", why(*errno));
        }
        RouterNews::Adopted => {
            tracing::info!(router, "the addresses are there from an earlier run and stay");
        }
        RouterNews::Unusable(reason) => {
            tracing::error!(router, "cannot be used: {reason}");
        }
        RouterNews::Unsent(errno) => {
            tracing::warn!(router, "a packet was not sent: {}", why(*errno));
        }
    }
}

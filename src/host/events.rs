//! Turns the worker's events into log lines.

use ringkeeper_core::io::Event;

/// Logs one event: transitions at info, oddities at warn.
pub(crate) fn log(event: &Event) {
    match event {
        Event::Drained => tracing::info!("all clients are gone"),
    }
}

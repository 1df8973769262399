//! The worker without clients of pools: what watches and steers the others.
//!
//! Its machines are optional, and each owns its connections: which one a connection belongs to
//! follows from its listener and then from its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::{Admin, AdminPlan, AdminRole};
use crate::id::{ConnId, ListenerId};
use crate::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Notice, Output};
use crate::time::Instant;

/// What the control worker does.
#[derive(Clone, Debug, Default)]
pub struct ControlPlan {
    /// What each of its listeners is for.
    pub listeners: BTreeMap<ListenerId, AdminRole>,
    /// The admin listener and the statistics port.
    pub admin: Option<Arc<AdminPlan>>,
}

/// The control thread's logic.
#[derive(Debug)]
pub struct Control {
    listeners: BTreeMap<ListenerId, AdminRole>,
    admin: Option<Admin>,
}

impl Control {
    /// Makes the worker; its behaviour follows from the plan and the inputs.
    pub fn new(plan: ControlPlan, now: Instant) -> Self {
        let admin = plan.admin.map(|plan| Admin::new(plan, now));
        Self { listeners: plan.listeners, admin }
    }

    /// Finds the machine that a connection belongs to.
    fn admin_of(&mut self, _conn: ConnId) -> Option<&mut Admin> {
        self.admin.as_mut()
    }
}

impl Drive for Control {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        _peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        let role = *self.listeners.get(&on).ok_or(AtCapacity)?;
        self.admin.as_mut().ok_or(AtCapacity)?.accept(now, role)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Received { conn, bytes } => {
                if let Some(admin) = self.admin_of(conn) {
                    admin.received(now, conn, bytes);
                }
            }
            Input::Eof { conn } => {
                if let Some(admin) = self.admin_of(conn) {
                    admin.eof(now, conn);
                }
            }
            Input::Sent { conn, buffer } => {
                if let Some(admin) = self.admin_of(conn) {
                    admin.sent(now, conn, buffer);
                }
            }
            Input::Closed { conn, .. } => {
                if let Some(admin) = self.admin_of(conn) {
                    admin.closed(now, conn);
                }
            }
            Input::Notice(Notice::Answer { from, query, answer }) => {
                if let Some(admin) = &mut self.admin {
                    admin.answered(now, query, from, answer);
                }
            }
            Input::Notice(Notice::ConfigRead { is_good }) => {
                if let Some(admin) = &mut self.admin {
                    admin.note_reload(now, is_good);
                }
            }
            // It has no clients of pools, so there is nothing to ask it and nothing to drain.
            Input::Notice(Notice::Question { .. } | Notice::Shard(_) | Notice::Sighting(_))
            | Input::Command(_) => {}
            Input::Connected { .. }
            | Input::Released { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. }
            | Input::Resolved { .. }
            | Input::Persisted { .. }
            | Input::Exited { .. } => {
                debug_assert!(false, "an answer to what was never asked: {input:?}");
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(admin) = &mut self.admin {
            admin.handle_timeout(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.admin.as_mut()?.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.admin.as_ref()?.poll_timeout()
    }
}

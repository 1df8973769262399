//! Virtual routers that are Active together or not at all.

use super::fsm::Phase;
use super::instance::VirtualRouter;
use crate::time::Instant;

/// A group of virtual routers. [`Settings`](super::Settings) of its members say `is_grouped`.
#[derive(Clone, Debug)]
pub struct SyncGroup {
    members: Vec<usize>,
    is_active: bool,
}

impl SyncGroup {
    /// Makes a group of the routers at these places.
    pub const fn new(members: Vec<usize>) -> Self {
        Self { members, is_active: false }
    }

    /// Makes a group of members that may be Active already.
    pub const fn resumed(members: Vec<usize>, is_active: bool) -> Self {
        Self { members, is_active }
    }

    /// Tells whether all members are Active.
    pub const fn is_active(&self) -> bool {
        self.is_active
    }

    /// Makes the members agree. To be called at the end of each turn in which one of them was
    /// given something.
    ///
    /// A fault of one is a fault of all; one that is outranked takes all along; they become Active
    /// when every one of them would.
    pub fn settle(&mut self, now: Instant, routers: &mut [VirtualRouter]) {
        for &member in &self.members {
            let has_fault = self.members.iter().any(|&other| {
                let at_fault = |router: &VirtualRouter| router.machine().has_own_fault();
                other != member && routers.get(other).is_some_and(at_fault)
            });
            if let Some(router) = routers.get_mut(member) {
                router.machine_mut().handle_group_fault(now, has_fault);
            }
        }
        let phase = |routers: &[VirtualRouter], member: usize| {
            routers.get(member).map_or(Phase::Init, VirtualRouter::phase)
        };
        if self.is_active {
            self.is_active =
                self.members.iter().all(|&member| phase(routers, member) == Phase::Active);
            if !self.is_active {
                self.each(routers, |router| router.machine_mut().handle_group_yield(now));
            }
            return;
        }
        let wants = |&member: &usize| {
            routers.get(member).is_some_and(|router| router.machine().wants_active())
        };
        if !self.members.is_empty() && self.members.iter().all(wants) {
            self.each(routers, |router| router.machine_mut().handle_group_active(now));
            self.is_active = true;
        }
    }

    fn each(&self, routers: &mut [VirtualRouter], mut act: impl FnMut(&mut VirtualRouter)) {
        for &member in &self.members {
            if let Some(router) = routers.get_mut(member) {
                act(router);
            }
        }
    }
}

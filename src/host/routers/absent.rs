//! Virtual routers need what only Linux has: there are none.

use std::time::Instant;

use ringkeeper_core::config::nutcracker::Config;

use super::Line;
use crate::host::sockets::{Direct, Inherited};

/// None can be made.
pub(crate) enum Routers {}

impl Routers {
    pub(crate) fn line(&self) -> Line {
        match *self {}
    }

    pub(crate) fn look(&mut self, _: Instant) {
        match *self {}
    }

    pub(crate) fn part(&mut self, _: &Config) -> Vec<Direct> {
        match *self {}
    }

    pub(crate) fn begin(&mut self, _: Vec<Inherited>) -> anyhow::Result<()> {
        match *self {}
    }

    pub(crate) fn read_again(&mut self) -> bool {
        match *self {}
    }

    pub(crate) fn sockets(&self) -> Vec<Inherited> {
        match *self {}
    }

    pub(crate) fn apply(&mut self, _: &[Inherited]) {
        match *self {}
    }

    pub(crate) fn forget(&mut self) {
        match *self {}
    }

    pub(crate) fn begin_leaving(&mut self) {
        match *self {}
    }

    pub(crate) fn hand_over(&mut self) {
        match *self {}
    }
}

//! Scenarios of the proxy through the border, in virtual time.

mod border;
mod commands;
mod failures;
mod found;
mod harness;
mod limits;
mod order;

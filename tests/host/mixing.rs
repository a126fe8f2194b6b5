//! Two devices of two instances, which wgpu itself does not tell apart.

use crate::common::mixing::{every_mixture_is_refused, foreign_buffers_are_refused};
use crate::common::noop;

#[test]
fn devices_do_not_mix() {
    every_mixture_is_refused(&noop(), &noop());
}

#[test]
fn buffers_of_other_devices_are_refused() {
    foreign_buffers_are_refused(&noop(), &[&noop()]);
}

//! The decisions: pure, without I/O, clock, locks or async.

pub mod effect;
pub mod ids;
pub mod input;
pub mod records;
pub mod rules;
pub mod sample;

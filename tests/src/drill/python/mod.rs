//! Worker frameworks written in Python.

use super::Framework;

/// Every one.
pub(super) fn all() -> Vec<Box<dyn Framework>> {
    vec![]
}

//! The machine that keeps a virtual address on exactly one router of a link.

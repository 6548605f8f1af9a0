//! towline-suite

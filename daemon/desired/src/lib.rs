//! towline-desired

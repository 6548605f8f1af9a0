//! towline-protocol

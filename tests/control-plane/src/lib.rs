//! towline-control-plane

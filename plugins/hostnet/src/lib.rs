//! towline-hostnet

//! towline-netstate

//! towline-lab

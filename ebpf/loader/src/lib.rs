//! towline-loader

//! towline-ebpf-shared

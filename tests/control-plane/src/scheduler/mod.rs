//! Scheduler: binds unscheduled pods to nodes.

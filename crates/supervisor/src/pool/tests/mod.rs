//! Tests of the state machine: scenarios, random events, and the waiting time of requests.
mod parked_requests;
mod scenarios;
mod simulation;

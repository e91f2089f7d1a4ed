//! One request and one worker: from the request body to the end of the response.
//!
//! In order: [`upload`] reads what it may before a worker is needed, [`queue`] opens the group's queue, [`delivery`] sends
//! the message and retries, [`relay`] moves both directions: [`frames`] interprets what the worker sends, [`download`] passes
//! the response on. [`state`] holds the states and their transitions, [`outcome`] the ways it can end.
pub mod delivery;
mod download;
mod frames;
pub mod outcome;
pub mod queue;
mod relay;
mod state;
pub mod upload;

#[cfg(test)]
mod tests;

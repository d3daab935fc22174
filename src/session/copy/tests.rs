//! What is written reads back, in every format.

package gitstoretest

// Zeros is zeros.
var Zeros = zeros

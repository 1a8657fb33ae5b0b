// The extents of a convolution.
const GROUPS = 1u;
const CI = 1u; // input channels of a group
const CO = 1u; // output channels of a group
const H = 1u;
const W = 1u;
const HO = 1u;
const WO = 1u;
const KH = 1u;
const KW = 1u;
const SH = 1u; // stride
const SW = 1u;
const DH = 1u; // dilation
const DW = 1u;
const PH = 0u; // padding before
const PW = 0u;
const FLIP = 0u; // 1: convolution in the mathematical sense, the kernel flipped; 0: cross-correlation

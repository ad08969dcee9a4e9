// SPDX-License-Identifier: Apache-2.0

package k0s

// CheckDropIns is run by a real shell.
const CheckDropIns = checkDropIns

/* Outcomes: what a claim means, seen from a region set, in one byte.
 *
 * Plain C11. The two lowest bits have the number of the Verdict, those above it that of the
 * Reason. So INSIDE is 1 and OUTSIDE 2, and what has neither verdict is another byte.
 */
#ifndef GEOLOOKUP_OUTCOME_H
#define GEOLOOKUP_OUTCOME_H

/* Numbers of a Reason are below this. */
#define GL_REASONS 10

/* Kinds of networks, each a bit of a byte: the number of a Network less one. */
#define GL_NETWORK_KINDS 8

static inline unsigned gl_outcome_verdict(unsigned outcome)
{
    return outcome & 3;
}

static inline unsigned gl_outcome_reason(unsigned outcome)
{
    return outcome >> 2;
}

#endif

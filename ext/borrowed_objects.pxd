# Reading objects through borrowed references: counting them would write to every object of a
# roster.

from cpython.ref cimport PyObject


cdef extern from *:
    """
    /* The characters of an ASCII str, or NULL for one that holds others. */
    static inline const char *gl_ascii(PyObject *text)
    {
    #if PY_VERSION_HEX < 0x030C0000
        if (PyUnicode_READY(text) < 0) {
            PyErr_Clear();
            return NULL;
        }
    #endif
        return PyUnicode_IS_ASCII(text) ? (const char *)PyUnicode_DATA(text) : NULL;
    }

    static inline void gl_prefetch(const void *address)
    {
        __builtin_prefetch(address);
    }
    """
    const char *gl_ascii(PyObject *text)
    void gl_prefetch(const void *address)
    bint PyUnicode_Check(PyObject *o)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *o)
    bint PyBytes_CheckExact(PyObject *o)
    const char *bytes_data "PyBytes_AS_STRING"(PyObject *o)
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject *o)
    bint PyLong_CheckExact(PyObject *o)
    long long PyLong_AsLongLongAndOverflow(PyObject *o, int *overflow)
    PyObject **PySequence_Fast_ITEMS(object o)
    Py_ssize_t PySequence_Fast_GET_SIZE(object o)
    size_t PY_SSIZE_T_MAX
